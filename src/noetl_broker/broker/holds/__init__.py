"""What keeps an execution from running: a pause, a place, a schedule."""
