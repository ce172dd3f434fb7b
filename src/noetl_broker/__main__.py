"""The command line as `python -m noetl_broker`."""

from __future__ import annotations

from noetl_broker.cli import main

if __name__ == "__main__":
    main()
