"""A worker's calls."""
