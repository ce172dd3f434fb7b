"""What pages show is printed by the command line: its fixtures serve here too."""

from tests.cli.conftest import demo, lone_command

__all__ = ["demo", "lone_command"]
