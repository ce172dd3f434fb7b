"""The decision that is being made, and what it may ask for."""
