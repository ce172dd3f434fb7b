"""`config`: every setting, its value and its source, without secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from noetl_broker import __version__
from noetl_broker.broker import core
from noetl_broker.broker.model.rules import Rules
from noetl_broker.cli.command import Call
from noetl_broker.cli.run import service_options
from noetl_broker.playbook import PlaybookRules
from noetl_broker.settings import Settings
from noetl_broker.store.connect.dsn import Database
from tests.cli.conftest import Command

NOWHERE = "postgresql://u@127.0.0.1:1/nowhere"


def test_each_setting_says_where_it_comes_from(lone_command: Command) -> None:
    """Command line, environment, file, default: the first that sets it is named."""
    file = lone_command.folder / "broker.toml"
    file.write_text("lanes = 4\nsweep_seconds = 2.0\n", encoding="utf-8")
    lone_command.environment["NOETL_BROKER_SWEEP_SECONDS"] = "3"
    answer = lone_command("config", "--config", file, "--dsn", "postgresql://u:topsecret@h/d", "--json")
    sources = {row["name"]: (row["value"], row["source"]) for row in json.loads(answer.stdout)}
    assert [sources[name] for name in ("dsn", "sweep_seconds", "lanes", "notify")] == [
        ("**********", "command line --dsn"),
        (3.0, "environment NOETL_BROKER_SWEEP_SECONDS"),
        (4, f"file {file}"),
        ("gated", "default"),
    ]


def test_no_password_is_shown(lone_command: Command) -> None:
    """The table hides it, too."""
    lone_command.environment["NOETL_BROKER_DSN"] = "postgresql://u:topsecret@h/d"
    answer = lone_command("config")
    assert answer.exit_code == 0
    assert "topsecret" not in answer.output


@pytest.mark.parametrize("name, text", [("a.yaml", "dsn: [{} x\nlanes: 2\n"), ("a.toml", "dsn = {} x\n")])
def test_an_error_in_a_config_file_does_not_show_its_text(lone_command: Command, name: str, text: str) -> None:
    """The line may contain the password."""
    file = lone_command.folder / name
    file.write_text(text.format("'postgresql://u:topsecret@h/d'"), encoding="utf-8")
    answer = lone_command("config", "--config", file)
    assert answer.exit_code == 2
    assert f"{file} is not valid" in answer.output
    assert "line " in answer.output
    assert "topsecret" not in answer.output


@pytest.mark.parametrize("name", ["dns", "dsn_", "database", "url"])
def test_an_unknown_setting_is_named_without_its_value(lone_command: Command, name: str) -> None:
    """Its value may be a DSN."""
    file = lone_command.folder / "broker.yaml"
    file.write_text(f"{name}: postgresql://u:topsecret@h/d\n", encoding="utf-8")
    answer = lone_command("config", "--config", file)
    assert answer.exit_code == 2
    assert f"setting {name} in {file}: there is no such setting" in answer.output
    assert "topsecret" not in answer.output


@pytest.mark.parametrize("dsn", ["postgresql://u:topsecret@h/d", "host=h user=u PASSWORD = topsecret"])
@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["plain", "debug"])
@pytest.mark.parametrize("place", ["environment", "beside a DSN", "file", "list in a file"])
def test_a_dsn_given_as_dsn_file_is_not_shown(
    lone_command: Command, place: str, debug: tuple[str, ...], dsn: str
) -> None:
    """It is no path. Values of another type are not shown either."""
    arguments: tuple[str | Path, ...] = ("config", *debug)
    if "file" in place:
        file = lone_command.folder / "broker.yaml"
        file.write_text(f"dsn_file: {json.dumps([dsn] if 'list' in place else dsn)}\n", encoding="utf-8")
        arguments += ("--config", file)
    else:
        lone_command.environment["NOETL_BROKER_DSN_FILE"] = dsn
    if place == "beside a DSN":
        lone_command.environment["NOETL_BROKER_DSN"] = "postgresql://h/d"
    answer = lone_command(*arguments)
    assert answer.exit_code == 2
    assert "setting dsn_file in " in answer.output
    assert ("it is no path but a DSN" in answer.output) is ("list" not in place)
    assert "topsecret" not in answer.output


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
def test_an_empty_variable_is_ignored(lone_command: Command, name: str) -> None:
    """Compose's `${DSN:-}` gives one if nothing is set: it hides neither the file nor the default."""
    file = lone_command.folder / "broker.yaml"
    file.write_text("lanes: 4\n", encoding="utf-8")
    variable = f"NOETL_BROKER_{name.upper()}"
    lone_command.environment.pop(variable, None)
    document = lone_command("config", "--config", file, "--json").stdout
    lone_command.environment[variable] = ""
    assert lone_command("config", "--config", file, "--json").stdout == document


@pytest.mark.parametrize("nothing", ["", "~", "''"])
@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_empty_value_in_a_config_file_is_ignored(lone_command: Command, name: str, nothing: str) -> None:
    """Null or empty text, which templates of such files produce. An unknown name is still reported."""
    file = lone_command.folder / "broker.yaml"
    file.write_text(f"{name}: {nothing}\n", encoding="utf-8")
    assert lone_command("config", "--config", file, "--json").stdout == lone_command("config", "--json").stdout
    file.write_text(f"{name}s_: {nothing}\n", encoding="utf-8")
    assert "there is no such setting" in lone_command("config", "--config", file).output


def test_an_empty_dsn_does_not_hide_its_file(lone_command: Command) -> None:
    """Otherwise the command would use the local database."""
    (lone_command.folder / "dsn").write_text(NOWHERE, encoding="utf-8")
    lone_command.environment |= {"NOETL_BROKER_DSN": "", "NOETL_BROKER_DSN_FILE": str(lone_command.folder / "dsn")}
    row = json.loads(lone_command("config", "--json").stdout)[0]
    assert (row["name"], row["source"]) == ("dsn", f"file {lone_command.folder / 'dsn'}")
    assert "('127.0.0.1', 1)" in lone_command("executions").output


@pytest.mark.parametrize("arguments", [("executions",), ("run", "--dsn", NOWHERE, "--fail-fast")], ids=["one", "two"])
def test_an_empty_dsn_on_the_command_line_is_refused(lone_command: Command, arguments: tuple[str, ...]) -> None:
    """An unset shell variable must not select another database. The same holds for a list."""
    answer = lone_command(*arguments, "--dsn", "")
    assert (answer.exit_code, answer.output[:29]) == (2, "noetl-broker: --dsn is empty:")
    lone_command.environment["NOETL_BROKER_DSNS"] = '[""]'
    assert lone_command("run", "--fail-fast").exit_code == 2


@pytest.mark.parametrize("name", ["dbt'; drop table noetl.event; --", "", "a b", "x" * 64, "a\n", "é"])
def test_a_step_type_that_is_no_identifier_is_refused(lone_command: Command, name: str) -> None:
    """The message names the setting, before anything is done."""
    lone_command.environment["NOETL_BROKER_EXTRA_STEP_TYPES"] = json.dumps(["dbt", name])
    answer = lone_command("config")
    assert answer.exit_code == 2
    assert "setting extra_step_types" in answer.output


@pytest.mark.parametrize("worker_id", ["a\nb", "\x1b[2J", "x" * 256])
def test_a_worker_id_with_control_characters_is_refused(lone_command: Command, worker_id: str) -> None:
    """The worker does not start."""
    answer = lone_command("worker", "--worker-id", worker_id)
    assert answer.exit_code == 2
    assert "printable characters on one line" in answer.output


CALL: dict[str, Any] = {
    "databases": (Database(),), "given_dsns": (), "given_schemas": (), "as_json": False, "config": None, "debug": False,
}  # fmt: skip


def test_the_defaults_are_those_of_the_rules() -> None:
    """A daemon without settings decides like the core."""
    call = Call(settings=Settings.model_validate({}), **CALL)
    assert service_options(call).rules == Rules()
    assert service_options(call).playbook_rules == PlaybookRules(any_step_type=True)


def test_template_limits_reach_the_service() -> None:
    """They apply at registration, and are pinned with an execution."""
    bounds = {"template_max_source_chars": 300, "template_max_output_chars": 2000, "template_max_steps": 3000}
    lengths = {"max_turns": 200, "max_fan_out": 3}
    settings = Settings.model_validate(bounds | lengths)
    call = Call(settings=settings, **CALL)
    options = service_options(call)
    assert options.playbook_rules == PlaybookRules(template_max_source_chars=300, any_step_type=True)
    assert options.rules == Rules(
        template_max_output_chars=2000,
        template_max_steps=3000,
        max_turns=200,
        max_fan_out=3,
    )


def test_a_variable_that_is_no_json_list_is_named_with_the_list_to_write(lone_command: Command) -> None:
    """The value of a secret stays hidden."""
    lone_command.environment["NOETL_BROKER_EXTRA_STEP_TYPES"] = "resize"
    answer = lone_command("config")
    said = "the variable NOETL_BROKER_EXTRA_STEP_TYPES holds 'resize', which is no JSON list: write '[\"resize\"]'"
    assert (answer.exit_code, said in answer.stderr) == (2, True)
    lone_command.environment = {**lone_command.environment, "NOETL_BROKER_DSNS": "postgresql://u:topsecret@h/d"}
    del lone_command.environment["NOETL_BROKER_EXTRA_STEP_TYPES"]
    assert "topsecret" not in lone_command("config").stderr


def test_the_form_of_the_program_is_named(lone_command: Command) -> None:
    """By `config` and by `--version`: whether the core that decides is machine code."""
    form = "plain" if str(core.__file__).endswith(".py") else "compiled"
    row = json.loads(lone_command("config", "--json").stdout)[-1]
    version = lone_command("--version").stdout.strip()
    assert (row["name"], row["value"], version) == ("form", form, f"noetl-broker, version {__version__} ({form})")
