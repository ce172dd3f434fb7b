"""Steps that wait for a moment, a signal or a person."""
