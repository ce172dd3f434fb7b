"""Lets `python -m noetl_broker` be the command line."""

from __future__ import annotations

from noetl_broker.cli import main

if __name__ == "__main__":
    main()
