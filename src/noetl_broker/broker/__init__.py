"""The decision core: pure functions from an event and a state to a decision. The page Architecture has the order."""
