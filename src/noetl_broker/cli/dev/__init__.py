"""The command `dev`: everything that a folder of playbooks needs, in one foreground process."""
