"""The decision core: pure functions from an event and a state to a decision. docs/architecture.md has the order."""
