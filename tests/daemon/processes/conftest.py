"""The fixtures of the command line, for `run` and `worker` as services."""

from tests.cli.conftest import _connections_of_decide, bare_command, command, lone_command

__all__ = ["_connections_of_decide", "bare_command", "command", "lone_command"]
