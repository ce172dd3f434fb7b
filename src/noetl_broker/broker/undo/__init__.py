"""What is to be undone, and what may still report a success after its visit is over."""
