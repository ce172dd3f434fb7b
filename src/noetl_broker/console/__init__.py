"""The HTTP API, and the pages beside it. It needs the extra `[console]`."""
