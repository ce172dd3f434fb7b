"""The ten questions of docs/how-to/agents.md: an agent asks as the page says, and gets what the page says."""

from __future__ import annotations

import io
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.store.admin import catalog
from tests.agents.conftest import Agent, over_stdio
from tests.brokers import drain, rows, start
from tests.docs.pages import code_blocks, read_page
from tests.postgres import Database
from tests.sessions import pooled_session

PAGE = read_page("agents")
PLAYBOOK = code_blocks(PAGE, "yaml")[0]
REMOVED, ADDED = (line[1:] for line in code_blocks(PAGE, "diff")[0].splitlines())
EDITED = PLAYBOOK.replace(REMOVED, ADDED)
QUESTION = re.compile(r"^### (.*)\n(?:.*\n)*?```text\n((?:.*\n)*?)```", re.MULTILINE)
LEASE = "select queue_id, attempts, action from noetl.lease_jobs('shop', 20)"
END = "select noetl.{}_job($1, 'shop', $2, $3)"


def do(action: dict[str, Any]) -> tuple[str, Any, str]:
    """Run the code of a job as the reference worker does; return how it ended, with what, and what it printed."""
    names: dict[str, Any] = {}
    with redirect_stdout(io.StringIO()) as printed:
        exec(b64decode(action["code_b64"]), names)  # noqa: S102 - the page's own code
        try:
            end, answer = "complete", names["main"](**action["args"])
        except ValueError as error:
            end, answer = "fail", {"type": "ValueError", "message": str(error)}
    return end, answer, printed.getvalue()


async def settle(database: Database) -> None:
    """Decide, and do the jobs, until nothing moves."""
    await drain(database)
    while leased := await rows(database, LEASE):
        for queue_id, attempt, action in leased:
            end, answer, printed = do(json.loads(action))
            if printed:
                await rows(database, "select noetl.log_job($1, 'shop', $2, 'info', $3)", queue_id, attempt, printed)
            await rows(database, END.format(end), queue_id, attempt, answer)
        await drain(database)


async def register(database: Database, text: str) -> None:
    """Register a version, as a person does."""
    async with pooled_session(database) as connection:
        await catalog.register(connection, [(compile_playbook(text, rules=PlaybookRules()), text)])


def questions() -> Iterator[tuple[str, list[tuple[str, dict[str, Any], list[str]]]]]:
    """Yield each question, and its calls: the tool, its arguments, and parts of the answer."""
    for question, block in QUESTION.findall(PAGE):
        calls: list[tuple[str, dict[str, Any], list[str]]] = []
        for line in block.splitlines():
            if line.startswith("  "):
                calls[-1][2].append(line.strip())
            else:
                tool, _, arguments = line.partition(" ")
                calls.append((tool, json.loads(arguments), []))
        yield question, calls


def filled(value: Any, names: dict[str, str]) -> Any:
    """Return arguments with ids in place of names in brackets."""
    if isinstance(value, dict):
        return {key: filled(one, names) for key, one in value.items()}
    return names.get(value, value) if isinstance(value, str) else value


def found_in_order(parts: list[str], text: str) -> bool:
    """Whether an answer has all these parts, in this order; … stands for anything."""
    return re.search(".*".join(re.escape(one) for part in parts for one in part.split("…")), text) is not None


async def asked(agent: Agent, database: Database, names: dict[str, str]) -> list[Any]:
    """Ask all questions; return what was wrong. Prints questions, calls and answers."""
    wrong = []
    for question, calls in questions():
        print(f"\n### {question}\n")
        if "retry" in question.lower():
            await register(database, EDITED)
        for tool, arguments, parts in calls:
            answer = await agent.answer(tool, **filled(arguments, names))
            if tool == "start_execution":
                names.setdefault("<new>", answer.data["execution_id"])  # the second start gives the same
            shown = answer.text
            for name, id_ in names.items():
                shown = shown.replace(id_ if name != "<edited>" else json.dumps(id_)[1:-1], name)
            print(f"- `{tool} {json.dumps(arguments)}`\n  `{shown}`")
            if answer.is_error or not found_in_order(parts, shown):
                wrong.append((question, tool, parts, shown))
            await settle(database)
    return wrong


async def test_each_question_gets_the_answer_of_the_page(database: Database) -> None:
    """Over stdio, as an operator; two orders have no street, one is large."""
    await register(database, PLAYBOOK)
    [failed, _] = await start(database, "shop/order", {"total": 50}, count=2)
    [order] = await start(database, "shop/order", {"total": 50, "street": "Elm 1"})
    [large] = await start(database, "shop/order", {"total": 500, "street": "Oak 2"})
    await settle(database)
    names = {"<failed>": str(failed), "<order>": str(order), "<large>": str(large), "<edited>": EDITED}
    async with over_stdio(database, "operator") as agent:
        wrong = await asked(agent, database, names)
    assert wrong == []
