"""`config`: every setting, its value and its source, without secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noetl_broker import __version__
from noetl_broker.broker import core
from noetl_broker.broker.model.rules import Rules
from noetl_broker.settings import Settings
from tests.cli.conftest import NOWHERE, Command, rows, write_playbook
from tests.postgres import Database

HIDDEN = "postgresql://u:topsecret@h/d"
ECHO = "workflow: [{step: start, next: end}, {step: end, result: '{{ 1 + 1 }}'}]\n"


def said(command: Command, text: str = "", *arguments: str | Path, name: str = "broker.yaml") -> str:
    """Give what `config` says of a wrong setting, here of a file with this text; it never shows the password."""
    if text:
        file = command.folder / name
        file.write_text(text.replace("DSN", HIDDEN), encoding="utf-8")
        arguments += ("--config", file)
    answer = command("config", *arguments)
    assert (answer.exit_code, "topsecret" in answer.output) == (2, False)
    return str(answer.output)


def test_each_setting_says_where_it_comes_from(lone_command: Command) -> None:
    """Command line, environment, file, default: the first that sets it is named. No password is shown."""
    file = lone_command.folder / "broker.toml"
    file.write_text("lanes = 4\nsweep_seconds = 2.0\n", encoding="utf-8")
    lone_command.environment["NOETL_BROKER_SWEEP_SECONDS"] = "3"
    call = ("config", "--config", file, "--dsn", HIDDEN)
    sources = {row["name"]: (row["value"], row["source"]) for row in lone_command.json(*call)}
    assert [sources[name] for name in ("dsn", "sweep_seconds", "lanes", "notify")] == [
        ("**********", "command line --dsn"),
        (3.0, "environment NOETL_BROKER_SWEEP_SECONDS"),
        (4, f"file {file}"),
        ("gated", "default"),
    ]
    assert "topsecret" not in lone_command(*call).output


@pytest.mark.parametrize("name, text", [("a.yaml", "dsn: ['DSN' x\nlanes: 2\n"), ("a.toml", "dsn = 'DSN' x\n")])
def test_an_error_in_a_config_file_does_not_show_its_text(lone_command: Command, name: str, text: str) -> None:
    """The line may contain the password. So may the value of an unknown setting."""
    output = said(lone_command, text, name=name)
    assert f"{lone_command.folder / name} is not valid" in output
    assert "line " in output
    for wrong in ("dns", "dsn_", "database", "url"):
        output = said(lone_command, f"{wrong}: DSN\n")
        assert f"setting {wrong} in {lone_command.folder / 'broker.yaml'}: there is no such setting" in output


@pytest.mark.parametrize("dsn", [HIDDEN, "host=h user=u PASSWORD = topsecret"])
@pytest.mark.parametrize("place", ["environment", "beside a DSN", "file", "list in a file"])
def test_a_dsn_given_as_dsn_file_is_not_shown(lone_command: Command, place: str, dsn: str) -> None:
    """It is no path. Values of another type are not shown either."""
    text = f"dsn_file: {json.dumps([dsn] if 'list' in place else dsn)}\n" if "file" in place else ""
    if not text:
        lone_command.environment["NOETL_BROKER_DSN_FILE"] = dsn
    if place == "beside a DSN":
        lone_command.environment["NOETL_BROKER_DSN"] = "postgresql://h/d"
    for debug in ((), ("--debug",)):
        output = said(lone_command, text, *debug)
        assert "setting dsn_file in " in output
        assert ("it is no path but a DSN" in output) is ("list" not in place)


@pytest.mark.parametrize(
    "arguments, dsns",
    [(("executions", "--dsn", NOWHERE), ()), (("doctor", "--dsn", NOWHERE), ()), (("doctor",), (NOWHERE,))],
)
def test_an_unneeded_dsn_file_is_not_read(
    lone_command: Command, arguments: tuple[str, ...], dsns: tuple[str, ...]
) -> None:
    """Another account may own it: the command line or `dsns` names the database."""
    lone_command.environment["NOETL_BROKER_DSN_FILE"] = str(lone_command.folder / "away")
    lone_command.environment["NOETL_BROKER_DSNS"] = json.dumps(dsns)
    answer = lone_command(*arguments)
    assert answer.exit_code == 69
    assert "the database cannot be reached" in answer.output


@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_empty_value_is_ignored(lone_command: Command, name: str) -> None:
    """Of a variable, as from Compose's `${DSN:-}`, and in a file, as from templates. Unknown names are reported."""
    file = lone_command.folder / "broker.yaml"
    file.write_text("lanes: 4\n", encoding="utf-8")
    variable = f"NOETL_BROKER_{name.upper()}"
    lone_command.environment.pop(variable, None)
    call, default = ("config", "--config", file, "--json"), lone_command("config", "--json").stdout
    document = lone_command(*call).stdout
    lone_command.environment[variable] = ""
    assert lone_command(*call).stdout == document
    del lone_command.environment[variable]
    for nothing in ("", "~", "''"):
        file.write_text(f"{name}: {nothing}\n", encoding="utf-8")
        assert lone_command("config", "--config", file, "--json").stdout == default
        assert "there is no such setting" in said(lone_command, f"{name}s_: {nothing}\n")


def test_an_empty_dsn_does_not_hide_its_file(lone_command: Command) -> None:
    """Otherwise the command would use the local database."""
    (lone_command.folder / "dsn").write_text(NOWHERE, encoding="utf-8")
    lone_command.environment |= {"NOETL_BROKER_DSN": "", "NOETL_BROKER_DSN_FILE": str(lone_command.folder / "dsn")}
    row = lone_command.json("config")[0]
    assert (row["name"], row["source"]) == ("dsn", f"file {lone_command.folder / 'dsn'}")
    assert "('127.0.0.1', 1)" in lone_command("executions").output


@pytest.mark.parametrize("arguments", [("executions",), ("run", "--dsn", NOWHERE, "--fail-fast")], ids=["one", "two"])
def test_an_empty_dsn_on_the_command_line_is_refused(lone_command: Command, arguments: tuple[str, ...]) -> None:
    """An unset shell variable must not select another database. The same holds for a list."""
    answer = lone_command(*arguments, "--dsn", "")
    assert (answer.exit_code, answer.output[:29]) == (2, "noetl-broker: --dsn is empty:")
    lone_command.environment["NOETL_BROKER_DSNS"] = '[""]'
    assert lone_command("run", "--fail-fast").exit_code == 2


def test_a_bad_value_is_refused_before_anything_is_done(lone_command: Command) -> None:
    """The message names the setting. A variable that is no JSON list is named with the list to write."""
    for name in ("dbt'; drop table noetl.event; --", "", "a b", "x" * 64, "a\n", "é"):
        lone_command.environment["NOETL_BROKER_EXTRA_STEP_TYPES"] = json.dumps(["dbt", name])
        assert "setting extra_step_types" in said(lone_command)
    lone_command.environment["NOETL_BROKER_EXTRA_STEP_TYPES"] = "resize"
    list_to_write = "NOETL_BROKER_EXTRA_STEP_TYPES holds 'resize', which is no JSON list: write '[\"resize\"]'"
    assert list_to_write in said(lone_command)
    del lone_command.environment["NOETL_BROKER_EXTRA_STEP_TYPES"]
    lone_command.environment["NOETL_BROKER_LANES"] = "99"
    assert "setting lanes '99' in the environment (NOETL_BROKER_LANES)" in said(lone_command)
    lone_command.environment["NOETL_BROKER_DSNS"] = HIDDEN
    said(lone_command)


@pytest.mark.parametrize("worker_id", ["a\nb", "\x1b[2J", "x" * 256])
def test_a_worker_id_with_control_characters_is_refused(lone_command: Command, worker_id: str) -> None:
    """The worker does not start."""
    lone_command.refuses([(("worker", "--worker-id", worker_id), 2, "printable characters on one line")])


def test_the_limits_in_the_settings_apply(command: Command, database: Database) -> None:
    """Those of templates at registration; all are pinned with an execution. The defaults are those of the core."""
    assert command("register", write_playbook(command.folder, ECHO)).exit_code == 0
    bounds = {"template_max_output_chars": 2000, "template_max_steps": 3000, "max_turns": 200, "max_fan_out": 3}
    for given in ({}, bounds):
        command.environment |= {f"NOETL_BROKER_{name.upper()}": str(value) for name, value in given.items()}
        assert [command(*words).exit_code for words in (("start", "examples/story"), ("run", "--drain"))] == [0, 0]
    command.environment["NOETL_BROKER_TEMPLATE_MAX_SOURCE_CHARS"] = "300"
    long = write_playbook(command.folder, ECHO.replace("1 + 1", "1" + " + 1" * 100))
    command.refuses([(("register", long), 1, "nothing was registered")])
    pinned = [row[0] for row in rows(database, "select rules from noetl.execution order by execution_id")]
    assert pinned == [Rules().pinned(), {**Rules().pinned(), **bounds}]


def test_the_form_of_the_program_is_named(lone_command: Command) -> None:
    """By `config` and by `--version`: whether the core that decides is machine code."""
    form = "plain" if str(core.__file__).endswith(".py") else "compiled"
    row = lone_command.json("config")[-1]
    version = lone_command("--version").stdout.strip()
    assert (row["name"], row["value"], version) == ("form", form, f"noetl-broker, version {__version__} ({form})")
