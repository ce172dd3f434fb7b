"""The rules of the hot path, each broken by a patch that the probes must notice."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from types import ModuleType
from typing import NamedTuple

import pytest

from noetl_broker.daemon.batch import Batch
from noetl_broker.store import queries
from tests.brokers import execute, value
from tests.postgres import Database, named


class Statement(NamedTuple):
    """A patch of a statement of the store."""

    name: str
    pattern: str
    new: str

    async def apply(self, _database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replace the loaded statement, and the one that is made of it."""
        for name in [self.name, *(["write_first_turns"] if self.name == "write_turns" else [])]:
            monkeypatch.setitem(queries.load(), name, replaced(queries.sql(name), self.pattern, self.new))


class Function(NamedTuple):
    """A patch of a SQL function."""

    name: str
    pattern: str
    new: str

    async def apply(self, database: Database, _monkeypatch: pytest.MonkeyPatch) -> None:
        """Create the patched function."""
        source = await value(database, "select pg_get_functiondef($1::text::regproc)", named(self.name))
        await execute(database, replaced(source, named(self.pattern), named(self.new)))


class Schema(NamedTuple):
    """A change of a table."""

    statement: str

    async def apply(self, database: Database, _monkeypatch: pytest.MonkeyPatch) -> None:
        """Execute the change."""
        await execute(database, self.statement)


class Method(NamedTuple):
    """A patch of a method, or of a function of a module, of the daemon or the store."""

    owner: type | ModuleType
    name: str
    pattern: str
    new: str

    async def apply(self, _database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        """Compile the patched source and replace the method."""
        original = getattr(self.owner, self.name)
        module = self.owner if isinstance(self.owner, ModuleType) else sys.modules[self.owner.__module__]
        names = {**vars(module)}
        source = textwrap.dedent(inspect.getsource(original))
        exec(replaced(source, self.pattern, self.new), names)  # noqa: S102 - our own source, patched by ourselves
        monkeypatch.setattr(self.owner, self.name, names[self.name])


Patch = Statement | Function | Schema | Method


def replaced(text: str, pattern: str, new: str) -> str:
    """Replace what the regular expression finds, which must be one place; a space in it stands for any white space."""
    changed, places = re.subn(pattern.replace(" ", r"\s+"), new, text, flags=re.DOTALL)
    assert places == 1, f"the pattern fits {places} times: {pattern}"
    return changed


# The broker's own events are no mail to it: a setting of the transaction, or of the session where there is none.
_WRITER = Function("noetl.take_mail", r"'broker', true\)", "'broker', false)")
_MARK = (
    'await connection.execute("delete from noetl.inbox where mail_id = any($1)", [m.mail_id for ms in {} for m in ms])'
)
_COMMIT = 'await connection.execute("commit"); await connection.execute("begin")'
_LOCK_IN_READ = r"""\g<0>
  join (
    select a.execution_id
    from (select distinct unnest(executions) as execution_id) a
    where pg_advisory_xact_lock(a.execution_id) is not null
    offset 0
  ) k on k.execution_id = u.execution_id
"""
NO_SECOND_WALL: tuple[Patch, ...] = (
    Schema("alter table noetl.turn drop constraint turn_pkey; create index on noetl.turn (execution_id, turn)"),
    Statement("write_turns", r"s\.turn = n\.expected", "true"),
)

MUTANTS: dict[str, tuple[Patch, ...]] = {
    "as it is": (),
    "no transaction": (_WRITER, Method(Batch, "run", r"async with transaction\(connection\):", "if True:")),
    "marked as read before the effects": (
        _WRITER,
        Method(
            Batch, "run", r"self\.claimed = claim\.mail", rf"\g<0>; {_MARK.format('claim.mail.values()')}; {_COMMIT}"
        ),
    ),
    "marked as read after the commit": (
        Statement("write_turns", r"delete from noetl\.inbox i where", r"\g<0> false and"),
        Method(Batch, "run", r"self\._count\(", rf"{_MARK.format('self.claimed.values()')}; \g<0>"),
    ),
    "a cursor on ids": (
        Method(
            Batch,
            "run",
            r"self\.start = start(.*?)self\._count\(",
            'self.start = start = ClaimStart(getattr(self.playbooks, "read_to", 0), newest=False)'
            r"\1self.playbooks.read_to = 1 + max(m.mail_id for ms in claim.mail.values() for m in ms); self._count(",
        ),
    ),
    "lock and read in one statement": (
        Function(
            "noetl.lock_executions",
            r"select array_agg\(l\.is_held.*?\) l;",
            "locks := array_fill(true, array[cardinality(executions)]);",
        ),
        Function("noetl.take_mail", r"from unnest\(mails, executions, events[^()]*\) u \([^()]*\)", _LOCK_IN_READ),
    ),
    "no unique turn": NO_SECOND_WALL,
    "a turn that ends leaves its workers": (Statement("cancel_jobs", r"stop = q\.status = 'leased'", "stop = false"),),
    "a turn that ends notifies no worker": (
        Statement("cancel_jobs", r"from cancelled c where c\.stop", "where false"),
    ),
    "an uncommitted lease is forgotten": (
        Function("noetl.reap_jobs_to_cancel", r"stop = q\.status = 'leased'", "stop = false"),
    ),
    "a wait that begins looks for no signal": (Statement("write_waits", r"where w\.kind = 'signal'", "where false"),),
    "a wait that did not take its signal looks no more": (
        Statement("reopen_waits", r"from opened(?= \))", r"\g<0> where false"),
    ),
    "a request of a locked wait is dropped": (
        Function(
            "noetl.deliver_signals", r"from unnest\(executions, nodes\) c \([^()]*\)(?= except)", r"\g<0> where false"
        ),
    ),
    "a heartbeat of a cancelled job is true": (Function("noetl.heartbeat_job", r"and not q\.stop", ""),),
}
