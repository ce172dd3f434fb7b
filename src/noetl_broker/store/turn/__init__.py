"""The transaction of a batch of turns: claims mail, loads what the core asks for, writes what it decided."""
