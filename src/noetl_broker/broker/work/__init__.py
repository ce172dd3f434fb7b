"""Work of actions: attempts, items and children."""
