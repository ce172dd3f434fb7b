"""The tools of the reference worker, one module each."""
