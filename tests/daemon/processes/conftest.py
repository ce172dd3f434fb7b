"""The fixtures of the command line, for services and for commands that lose their connection."""

from tests.cli.conftest import _connections_of_decide, bare_command, command, lone_command, started

__all__ = ["_connections_of_decide", "bare_command", "command", "lone_command", "started"]
