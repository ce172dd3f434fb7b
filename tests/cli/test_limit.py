"""`limit list`, `put` and `delete`, and what `status` and `explain` say about jobs that a throttle holds."""

from __future__ import annotations

from tests.cli.conftest import Command, decide, rows, write_playbook
from tests.postgres import Database

CHARGE = """\
workload: {account: a}
workflow:
  - {step: start, next: charge}
  - step: charge
    type: python
    code: "def main(): ..."
    throttle: {name: bank, key: "{{ workload.account }}", concurrency: 2}
    next: end
  - {step: end}
"""


def test_a_limit_is_listed_changed_and_deleted(command: Command, database: Database) -> None:
    """The row rules: registration only tells of other numbers. `status` and `explain` say what a job waits for."""
    assert "no throttles" in command("limit", "list").stdout
    made = command("limit", "put", "bank", "--concurrency", "1").stdout
    assert made == "bank: 1 at a time (new; no job has counted for it yet)\n"
    told = command("register", write_playbook(command.folder, CHARGE, path="examples/charge"))
    first, second = (int(command("start", "examples/charge").stdout) for _ in range(2))
    decide(database)
    [(leased,)] = rows(database, "select execution_id from noetl.lease_jobs('w')")
    [key] = command("limit", "list", "bank").stdout.splitlines()[1:]
    status, explained = (command(name, second).stdout for name in ("status", "explain"))
    put = command("limit", "put", "bank", "--concurrency", "3", "--rate", "30/m")
    deleted, again = command("limit", "delete", "bank"), command("limit", "delete", "bank")
    assert (
        "throttle bank has 1 at a time, and the playbook says 2 at a time: the throttle stays as it is" in told.stderr
    )
    assert (leased, key.split()) == (first, ["a", "1", "0", "1"])
    assert "waits for a slot of the throttle bank" in status
    assert f"of the throttle bank a (1 at a time): 1 leased ({first}), 0 ready, it is the next one" in explained
    assert [one.stdout for one in (put, deleted)] == ["bank: 3 at a time, 30/m\n", "bank: deleted\n"]
    assert (again.exit_code, "there is no limit bank" in again.output) == (1, True)


def test_a_wrong_limit_is_refused(command: Command) -> None:
    """With the value and the remedy."""
    cases = [
        (("put", "bank", "--burst", "3"), 2, "throttle bank has neither a concurrency nor a rate"),
        (("put", "bank", "--rate", "fast"), 2, "'fast' is not a rate; write 10/s, 100/m, 5000/h"),
        (("put", "bank", "--rate", "2000000"), 2, "'2000000' is not a rate; write 10/s, 100/m, 5000/h"),
        (("put", "", "--rate", "5"), 2, "it must not be empty; it is ''"),
    ]
    command.refuses(cases, "limit")
