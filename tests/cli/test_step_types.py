"""`step-type`: the types of people's own workers, and what registration does with them."""

from __future__ import annotations

from tests.cli.conftest import Command, rows, write_playbook
from tests.postgres import Database

RESIZE = """\
workflow:
  - {step: start, next: a}
  - {step: a, type: resize, width: 7}
"""


def test_a_type_in_the_database_can_be_registered(command: Command, database: Database) -> None:
    """A removed one cannot, and what is registered stays."""
    file = write_playbook(command.folder, RESIZE, path="examples/resize")
    refused = command("register", file)
    assert refused.exit_code == 1
    assert "the type `resize` is not known" in refused.stderr
    assert "noetl-broker step-type add" in refused.stderr
    assert command("step-type", "add", "resize", "dbt").stdout == "2 of 2 step types added\n"
    assert command("step-type", "add", "resize").stdout == "0 of 1 step types added\n"
    assert command("register", file).exit_code == 0
    assert command("step-type", "remove", "resize").stdout == "1 of 1 step types removed\n"
    assert command("step-type", "remove", "resize").exit_code == 1
    assert command("register", file).exit_code == 1
    assert rows(database, "select path, version from noetl.catalog") == [("examples/resize", 1)]


def test_the_list_says_who_added_a_type(command: Command) -> None:
    """As a table, and as JSON."""
    assert command("step-type", "list").stdout == "no step types; a Python worker adds its own when it starts\n"
    command("step-type", "add", "resize")
    assert "resize" in command("step-type", "list").stdout
    [found] = command.json("step-type", "list")
    assert (found["name"], set(found)) == ("resize", {"name", "added_at", "added_by"})


def test_a_bad_name_exits_with_2(command: Command) -> None:
    """One sentence says why."""
    runs = "the broker runs steps of type 'wait' itself; give the type of your worker another name"
    command.refuses(
        [
            ("add wait", 2, runs),
            (("add", "a b"), 2, "'a b' is no name of a step type"),
            ("add", 2, "step-type add needs a name"),
            ("list resize", 2, "step-type list takes no names"),
        ],
        "step-type",
    )
