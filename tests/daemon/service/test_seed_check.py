"""The check that the seed document asks for: its playbook, its SQL, its expected output."""

from __future__ import annotations

from pathlib import Path

from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.resources import playbooks_folder
from noetl_broker.store.admin.catalog import register
from tests.brokers import broken_invariants, drain, rows
from tests.postgres import Database
from tests.sessions import session

CHECK = """
SELECT event_type, node_name 
FROM noetl.event 
WHERE execution_id = (
  SELECT execution_id FROM noetl.event 
  ORDER BY created_at DESC LIMIT 1
)
ORDER BY created_at;
"""  # noqa: W291 - verbatim
EXPECTED = """
execution_start    | create_tables
step_started       | create_flat_table
action_started     | create_flat_table
action_completed   | create_flat_table
step_completed     | create_flat_table
step_started       | create_nested_table
action_started     | create_nested_table
action_completed   | create_nested_table
step_completed     | create_nested_table
step_started       | create_summary_table
action_started     | create_summary_table
action_completed   | create_summary_table
step_completed     | create_summary_table
execution_complete | create_tables
"""


async def test_the_check_of_the_seed_gives_its_expected_output(database: Database) -> None:
    """SQL only: start, lease, complete. `order by created_at` gives the events in their order."""
    file = Path(playbooks_folder()) / "create_tables.yaml"
    text = file.read_text(encoding="utf-8")
    async with session(database) as own:
        await register(own, [(compile_playbook(text, file=file.name, rules=PlaybookRules()), text)])
        await own.execute("select noetl.start_execution('examples/create_tables')")
        await drain(database)
        for _ in range(3):
            job = await own.fetchrow("select queue_id, attempts from noetl.lease_jobs('psql')")
            assert job is not None
            assert await own.fetchval("select noetl.complete_job($1, 'psql', $2, '{}')", *job)
            await drain(database)
    table = "".join(f"{kind:<18} | {name}\n" for kind, name in await rows(database, CHECK))
    assert table == EXPECTED.lstrip()
    assert await broken_invariants(database) == {}
