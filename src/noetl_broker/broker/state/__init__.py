"""What lives between two turns, and the moves within one."""
