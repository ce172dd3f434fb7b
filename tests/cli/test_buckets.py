"""Commands on an installation with buckets of which one does not answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.brokers import execute
from tests.cli.conftest import Command
from tests.postgres import Database
from tests.stories import document


def test_commands_that_ask_all_buckets_name_the_one_that_does_not_answer(
    lone_command: Command, installation: Database
) -> None:
    """Beside what the others answer. What must be done in all of them is refused."""
    name = installation.schema
    lone_command.environment |= {"NOETL_BROKER_DSN": installation.dsn, "NOETL_BROKER_SCHEMA": name}
    asyncio.run(execute(installation.bucket(2), "drop schema noetl cascade"))
    for arguments, status in (("executions", 0), ("verify", 1), ("dead-letters", 0)):
        answer = lone_command(arguments)
        assert answer.exit_code == status
        assert f"a bucket did not answer: {name}_2: the database has no {name}_2 schema of ours; run" in answer.stderr
        assert f"if {name}_2 was there before, restore it from a backup" in answer.stderr
    assert "all hold, in the buckets that answered" in lone_command("verify").stdout
    findings = json.loads(lone_command("doctor", "--json").stdout)["findings"]
    says = [one["says"] for one in findings if one["check"] == "buckets"]
    assert says == ["3 buckets have the same settings"]
    lone_command.refuses([
        ("step-type add gpu", 78, f'schema "{name}_2" does not exist'),
        ("migrate", 78, f"the bucket {name}_2 of the installation {name} is missing: restore the schema"),
        ("migrate --buckets 8", 2, f"the installation {name} has 4 buckets, for ever"),
    ])  # fmt: skip


def test_what_is_the_same_in_all_buckets_is_not_set_in_one(
    lone_command: Command, installation: Database, tmp_path: Path
) -> None:
    """The installation is to be named."""
    file = tmp_path / "story.yaml"
    file.write_text(document("workflow: [{step: start}]"), encoding="utf-8")
    name, bucket = installation.schema, installation.bucket(1).schema
    lone_command.environment |= {"NOETL_BROKER_DSN": installation.dsn, "NOETL_BROKER_SCHEMA": bucket}
    why = f"{bucket} is a bucket, and this is the same in all buckets: name the installation, --schema {name}"
    lone_command.refuses([
        (f"register {file}", 2, why), ("step-type add gpu", 2, why), ("limit put api --concurrency 1", 2, why),
        ("token create me --role viewer", 2, why), ("pause --path story", 2, why), ("resume --path story", 2, why),
    ])  # fmt: skip
