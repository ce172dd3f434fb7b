"""A token arrives: it enters a step, or waits at a join; or a fork takes it over."""
