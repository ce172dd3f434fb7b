"""What runs as a service is started by the command line: its fixtures serve here too."""

from tests.cli.conftest import command, lone_command

__all__ = ["command", "lone_command"]
