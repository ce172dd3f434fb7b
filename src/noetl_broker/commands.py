"""The table of all commands. A new command is a row in it and a module of `noetl_broker.cli`.

Messages of other packages name commands too: `store/connect/schema_name.py` finds them by this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class CommandEntry(NamedTuple):
    """A command: its module in `noetl_broker.cli`, and the first line of its docstring for the list of commands.

    A group has commands of its own: `limit put`. They have the options.
    """

    module: str
    sentence: str
    is_group: bool = False


COMMANDS: Mapping[str, CommandEntry] = {
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
    "token": CommandEntry("token", "Create, list and revoke tokens of the HTTP API."),
    "worker": CommandEntry("worker", "Run the reference worker: lease jobs, run them, report results."),
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
    "undo": CommandEntry("execution_actions", "Undo what is left of an execution that has ended, in a new execution."),
    "abandon": CommandEntry("execution_actions", "Give up the undo of an execution: it fails, and lists what is left."),
    "graph": CommandEntry("graph", "Draw a playbook, or an execution with the path it took."),
    "replay": CommandEntry("replay.command", "Replay every decision of executions and report differences."),
    "verify": CommandEntry("verify", "Check the invariants of stored executions."),
    "archive": CommandEntry("archive", "Archive old history by whole periods; nothing is deleted."),
    "doctor": CommandEntry("doctor", "Find what keeps brokers from working, and say what to do."),
    "completion": CommandEntry("completion", "Print a completion script for bash, zsh or fish."),
    "config": CommandEntry("config", "Show the settings and where each comes from."),
}
