"""What keeps an execution from running: a pause, a slot, a schedule."""
