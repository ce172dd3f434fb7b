"""Checks of a playbook that compiles: mostly warnings."""
