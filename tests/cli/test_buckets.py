"""Commands on an installation with buckets of which one does not answer."""

from __future__ import annotations

import asyncio
import json

from tests.brokers import execute
from tests.cli.conftest import Command
from tests.postgres import Database


def test_commands_that_ask_all_buckets_name_the_one_that_does_not_answer(
    lone_command: Command, installation: Database
) -> None:
    """Beside what the others answer. What must be done in all of them is refused."""
    name = installation.schema
    lone_command.environment |= {"NOETL_BROKER_DSN": installation.dsn, "NOETL_BROKER_SCHEMA": name}
    asyncio.run(execute(installation.bucket(2), "drop schema noetl cascade"))
    for arguments in ("executions", "verify", "dead-letters"):
        answer = lone_command(arguments)
        assert answer.exit_code == 0
        assert f"a bucket did not answer: {name}_2: " in answer.stderr
    findings = json.loads(lone_command("doctor", "--json").stdout)["findings"]
    says = [one["says"] for one in findings if one["check"] == "buckets"]
    assert says == ["3 buckets have the same settings"]
    lone_command.refuses([
        ("step-type add gpu", 78, f'schema "{name}_2" does not exist'),
        ("migrate", 78, f"the bucket {name}_2 of the installation {name} is missing: restore the schema"),
        ("migrate --buckets 8", 2, f"the installation {name} has 4 buckets, for ever"),
    ])  # fmt: skip
