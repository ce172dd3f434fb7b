"""The table of all commands. A new command is a row in it, and a function of `cli` unless it is an ActionEntry.

Messages of other packages name commands too: `store/connect/schema_name.py` finds them by this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class CommandEntry(NamedTuple):
    """A command: its module in `noetl_broker.cli`, and the first line of its docstring for the list of commands.

    A group has commands of its own: `limit put`. They have the options.
    """

    module: str
    sentence: str
    is_group: bool = False


class ActionEntry(NamedTuple):
    """A command that is one action of the service, `executions.start_execution`, and answers with a sentence.

    `request` is its model, `actions.ReasonRequest`; fields that are not `arguments` are options, and `helps` has other
    helps of these. What the command `says`, and its `note` on stderr, name fields of the request and the answer.
    `otherwise` is said where the answer's `requested` or `changed` is false; without a request, the exit code is 1.
    """

    sentence: str
    action: str
    request: str
    arguments: tuple[str, ...]
    says: str
    example: str
    details: str = ""  # of the help
    otherwise: str = ""
    note: str = ""
    helps: Mapping[str, str] = MappingProxyType({})
    is_group: bool = False


COMMANDS: Mapping[str, CommandEntry | ActionEntry] = {
    "dev": CommandEntry("dev", "Run all that a folder of playbooks needs: Postgres, broker, worker, console."),
    "demo": CommandEntry("demo", "Run a demo: a Postgres of its own, a broker, a worker, two playbooks."),
    "migrate": CommandEntry("migrate", "Bring the database's schema up to date."),
    "validate": CommandEntry("playbooks", "Check playbooks without a database."),
    "register": CommandEntry("playbooks", "Register playbooks; changed content makes a new version."),
    "schema": CommandEntry("schema", "Print the JSON Schema of playbooks, for editors."),
    "limit": CommandEntry(
        "limit", "Limit jobs: how many of a key run at a time, how many begin in a second.", is_group=True
    ),
    "step-type": CommandEntry("step_types", "List, add and remove the step types of your own workers."),
    "run": CommandEntry("run", "Run the broker until it is stopped."),
    "console": CommandEntry("console", "Serve the console and the HTTP API until stopped."),
    "mcp": CommandEntry("mcp", "Give agents tools on stdin and stdout, by MCP."),
    "token": CommandEntry("token", "Create, list and revoke tokens of the HTTP API."),
    "worker": CommandEntry("worker", "Run the reference worker: lease jobs, run them, report results."),
    "workers": CommandEntry("workers", "List the workers that run: pools, types, slots and leases."),
    "start": CommandEntry("start", "Start an execution of a playbook."),
    "cancel": CommandEntry("execution_actions", "Cancel an execution and its children."),
    "signal": CommandEntry("signal", "Send a signal to the executions that wait for it."),
    "approvals": CommandEntry("approvals", "List what waits for a person's decision, oldest first."),
    "approve": CommandEntry("approvals", "Approve what waits in a step of an execution."),
    "reject": CommandEntry("approvals", "Reject what waits in a step of an execution."),
    "schedule": CommandEntry(
        "schedule", "Start playbooks at given times: put, list, pause and backfill schedules.", is_group=True
    ),
    "pause": CommandEntry("execution_actions", "Pause executions, or queue the new executions of a playbook."),
    "resume": CommandEntry("execution_actions", "Resume paused executions, or the new executions of a playbook."),
    "executions": CommandEntry("inspect", "List executions, newest first; those of blocks below their parents."),
    "stats": CommandEntry("stats", "Show how many executions started and failed, and how long they took, by time."),
    "status": CommandEntry("inspect", "Show the state of an execution, step by step."),
    "events": CommandEntry("inspect", "Show the events of an execution in the order of its turns."),
    "logs": CommandEntry("logs", "Show what the steps of an execution printed and logged, by time."),
    "explain": CommandEntry("explain", "Explain why a step ran, why it did not, or what it waits for."),
    "dead-letters": CommandEntry(
        "execution_actions", "List dead letters: events on which deciding failed, oldest first."
    ),
    "reevaluate": CommandEntry("execution_actions", "Give dead letters and lost mail back to the broker."),
    "retry": CommandEntry(
        "execution_actions", "Retry failed executions, each as a new execution from its failed step."
    ),
    "fork": CommandEntry("fork", "Start an execution from a step of another, with its results."),
    "undo": ActionEntry(
        "Undo what an execution did that has ended, or settle what was undone by hand.",
        "execution_actions.undo_execution",
        "actions.UndoRequest",
        ("execution_id",),
        "{said}",
        otherwise="{said}",
        details="That is what was not undone when the execution failed or was cancelled, or all of one that completed. "
        "The last success is undone first. Its status, result and error stay. --version gives another version, which "
        "must have a `compensate` for all that is left. --settle closes a step that somebody undid by hand. "
        "Exit 1 if nothing is left to undo.",
        note="noetl-broker status {execution_id} shows how far it is",
        helps={
            "unknown": "Undo also actions of unknown outcome: they timed out, or lost their lease.",
            "version": "Undo with the `compensate` of this version, or of the latest.",
            "settle": "A step that somebody undid by hand, or that never happened.",
            "reason": "Who undid it, and how; only with --settle.",
        },
        example="noetl-broker undo 58123456789012345\n"
        "noetl-broker undo 58123456789012345 --settle refund --reason 'by the bank'\n"
        "noetl-broker undo 58123456789012345 --unknown   # also what may not have happened\n"
        "noetl-broker undo 58123456789012345 --version latest   # with a mended compensate",
    ),
    "abandon": ActionEntry(
        "Give up the undo of an execution, and list what is left.",
        "execution_actions.abandon_execution",
        "actions.ReasonRequest",
        ("execution_id",),
        "abandoning the undo of execution {execution_id}",
        otherwise="execution {execution_id} undoes nothing: {status}",
        details="The worker of an undo that runs is told to stop, and the outcome is unknown. Exit 1 if none runs.",
        example="noetl-broker abandon 58123456789012345 --reason 'the bank does it by hand'",
    ),
    "erase": CommandEntry("execution_actions", "Erase the values of executions that have ended."),
    "graph": CommandEntry("graph", "Draw a playbook, or an execution with the path it took."),
    "replay": CommandEntry("replay.command", "Replay every decision of executions and report differences."),
    "verify": CommandEntry("verify", "Check the invariants of stored executions."),
    "archive": CommandEntry("archive", "Archive old history by whole periods; nothing is deleted."),
    "doctor": CommandEntry("doctor", "Find what keeps brokers from working, and say what to do."),
    "completion": CommandEntry("completion", "Print a completion script for bash, zsh or fish."),
    "config": CommandEntry("config", "Show the settings and where each comes from."),
}
