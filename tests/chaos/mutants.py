"""The rules of the hot path, each broken by a patch that the probes must notice."""

from __future__ import annotations

import inspect
import textwrap
from importlib import import_module
from typing import NamedTuple

import pytest

from noetl_broker.store import queries
from tests.brokers import execute, value
from tests.postgres import Database, named


class Statement(NamedTuple):
    """A patch of a statement of the store."""

    name: str
    old: str
    new: str

    async def apply(self, _database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replace the loaded statement, and the one that is made of it."""
        for name in [self.name, *(["write_first_turns"] if self.name == "write_turns" else [])]:
            monkeypatch.setitem(queries.load(), name, replaced(queries.sql(name), self.old, self.new))


class Function(NamedTuple):
    """A patch of a SQL function."""

    name: str
    old: str
    new: str

    async def apply(self, database: Database, _monkeypatch: pytest.MonkeyPatch) -> None:
        """Create the patched function."""
        source = await value(database, "select pg_get_functiondef($1::text::regproc)", named(self.name))
        await execute(database, replaced(source, named(self.old), named(self.new)))


class Schema(NamedTuple):
    """A change of a table."""

    statement: str

    async def apply(self, database: Database, _monkeypatch: pytest.MonkeyPatch) -> None:
        """Execute the change."""
        await execute(database, self.statement)


class Method(NamedTuple):
    """A patch of the source of a method, without the indentation of its class."""

    module: str
    owner: str
    name: str
    old: str
    new: str

    async def apply(self, _database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        """Compile the patched source and replace the method."""
        module = import_module(self.module)
        owner = getattr(module, self.owner)
        source = textwrap.dedent(_source(getattr(owner, self.name)))
        patched = replaced(source, self.old, self.new)
        names = {**vars(module)}
        exec(patched, names)  # noqa: S102 - our own source, patched by ourselves
        method = names[self.name]
        method.patched_source = patched
        monkeypatch.setattr(owner, self.name, method)


Patch = Statement | Function | Schema | Method


def replaced(text: str, old: str, new: str) -> str:
    """Replace `old`, which must occur exactly once. A patch that does not fit any more raises."""
    assert text.count(old) == 1, f"the patch fits {text.count(old)} times: {old}"
    return text.replace(old, new)


def _source(method: object) -> str:
    return str(getattr(method, "patched_source", None) or inspect.getsource(method))  # type: ignore[arg-type]


def _run(old: str, new: str) -> Method:
    return Method("noetl_broker.daemon.batch", "Batch", "run", old, new)


# The broker's own events are no mail to it: a setting of the transaction, or of the session where there is none.
_WRITER = Function("noetl.take_mail", "'broker', true)", "'broker', false)")
_MARK = (
    'await connection.execute("delete from noetl.inbox where mail_id = any($1)", [m.mail_id for ms in {} for m in ms])'
)
_COUNT = "    self._count(outcomes, faults)\n"
_LOCK = """\
  select array_agg(l.is_held order by l.ordinal)
  into locks
  from (
    select u.ordinal, bool_and(pg_try_advisory_xact_lock(u.execution_id)) over (partition by u.execution_id) as is_held
    from unnest(executions) with ordinality u (execution_id, ordinal)
  ) l;
"""
_READ = """\
    from unnest(mails, executions, events, locks, sizes) u (mail_id, execution_id, event_id, is_held, oversize)
"""
_LOCK_IN_READ = """\
  join (
    select a.execution_id
    from (select distinct unnest(executions) as execution_id) a
    where pg_advisory_xact_lock(a.execution_id) is not null
    offset 0
  ) k on k.execution_id = u.execution_id
"""
NO_SECOND_WALL: tuple[Patch, ...] = (
    Schema("alter table noetl.turn drop constraint turn_pkey; create index on noetl.turn (execution_id, turn)"),
    Statement("write_turns", "and s.turn = n.expected and n.expected > 0", "and n.expected > 0"),
)

MUTANTS: dict[str, tuple[Patch, ...]] = {
    "as it is": (),
    "no transaction": (
        _WRITER,
        _run("    async with transaction(connection):\n", "    if True:\n"),
    ),
    "marked as read before the effects": (
        _WRITER,
        _run(
            "        if not claim.mail:\n            return claim\n",
            f"        {_MARK.format('claim.mail.values()')}\n"
            "    if not claim.mail:\n        return claim\n    async with transaction(connection):\n",
        ),
    ),
    "marked as read after the commit": (
        Statement(
            "write_turns", "delete from noetl.inbox i\n  where ", "delete from noetl.inbox i\n  where false and "
        ),
        _run(_COUNT, f"    {_MARK.format('self.claimed.values()')}\n{_COUNT}"),
    ),
    "a cursor on ids": (
        _run(
            "self.start = start",
            'self.start = start = turn_store.ClaimStart(getattr(self.playbooks, "read_to", 0), newest=False)',
        ),
        _run(
            _COUNT,
            f"    self.playbooks.read_to = 1 + max(m.mail_id for ms in claim.mail.values() for m in ms)\n{_COUNT}",
        ),
    ),
    "lock and read in one statement": (
        Function("noetl.lock_executions", _LOCK, "  locks := array_fill(true, array[cardinality(executions)]);\n"),
        Function("noetl.take_mail", _READ, _READ + _LOCK_IN_READ),
    ),
    "no unique turn": NO_SECOND_WALL,
    "a turn that ends leaves its workers": (Statement("withdraw_jobs", "stop = q.status = 'leased'", "stop = false"),),
    "a turn that ends notifies no worker": (Statement("withdraw_jobs", "from closed c where c.stop", "where false"),),
    "an uncommitted lease is forgotten": (
        Function("noetl.reap_withdrawn_jobs", "stop = q.status = 'leased'", "stop = false"),
    ),
    "a wait that begins looks for no signal": (Statement("write_waits", "where w.kind = 'signal'", "where false"),),
    "a wait that did not take its signal looks no more": (
        Statement("reopen_waits", "  from opened\n)", "  from opened\n  where false\n)"),
    ),
    "a look at a locked wait is dropped": (
        Function(
            "noetl.deliver_signals",
            "from unnest(executions, nodes) c (execution_id, node_id)\n    except",
            "from unnest(executions, nodes) c (execution_id, node_id)\n    where false\n    except",
        ),
    ),
    "a heartbeat of a cancelled job is true": (Function("noetl.heartbeat_job", "and not q.stop", ""),),
}
