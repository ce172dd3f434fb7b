"""What keeps running: the listener, the evaluator lanes, the reaper, and the service around them."""
