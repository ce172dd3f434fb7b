"""The wheel of these tests: built once, installed once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.wheels import Program, build, copy_of_the_tree, install, make_next_minor, quick_compiler

# A release with a column in tables whose rows are arguments of functions, a function replaced, and rows of a new kind.
NEXT_MINOR = (
    """
alter table noetl.execution add column if not exists note text;
alter table noetl.queue add column if not exists noted_at timestamptz not null default clock_timestamp();
""",
    """
create or replace function noetl.is_mail(event_type text) returns boolean
language sql immutable parallel safe
as $$
  select coalesce(noetl.kind_of(event_type), '') not in ('action_started', 'step_result', 'job_noted')
$$;

create or replace function noetl.note_job() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into noetl.event (execution_id, catalog_id, event_type, node_id, node_name, context)
  values (new.execution_id, new.catalog_id, 'job_noted', new.node_id, new.node_name, to_jsonb(new.noted_at));
  return null;
end
$$;

create or replace trigger noetl_note_job
after update of status on noetl.queue
for each row when (new.status = 'done') execute function noetl.note_job();
""",
)
SECOND_NEXT_MINOR = ("alter table noetl.execution drop column if exists note;\n",)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files of which a wheel is built."""
    return copy_of_the_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="session")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    return build(tree, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def compiled_wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled wheel of this tree, for this Python."""
    compiler = str(quick_compiler(tmp_path_factory.mktemp("compiler")))
    return build(tree, tmp_path_factory.mktemp("compiled"), HATCH_BUILD_HOOK_ENABLE_CUSTOM="true", CC=compiler)


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """This version."""
    return install(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def later(tmp_path_factory: pytest.TempPathFactory) -> tuple[Program, Program]:
    """The next two minor releases, made of this tree."""
    made, tree = [], copy_of_the_tree(tmp_path_factory.mktemp("later"))
    for migrations in (NEXT_MINOR, SECOND_NEXT_MINOR):
        make_next_minor(tree, *migrations)
        wheel = build(tree, tmp_path_factory.mktemp("wheel"))
        made.append(install(wheel, tmp_path_factory.mktemp("installed")))
    return made[0], made[1]
