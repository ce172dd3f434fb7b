"""Explains executions in sentences: why a step ran or not, what is waited for, why it ended. Pure, like the core."""
