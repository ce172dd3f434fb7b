"""Events, decisions, effects and rules: what the core reads and what it gives back."""
