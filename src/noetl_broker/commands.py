"""The table of all commands. A new command is a row in it and a module of `noetl_broker.cli`.

Messages of other packages name commands too: `store/connect/schema_name.py` finds them by this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """A command: its module in `noetl_broker.cli`, and the first line of its docstring for the list of commands.

    A group has commands of its own: `limit put`. They have the options.
    """

    module: str
    sentence: str
    is_group: bool = False


COMMANDS: Mapping[str, Entry] = {
    "dev": Entry("dev.command", "Run all that a folder of playbooks needs: Postgres, broker, worker, console."),
    "demo": Entry("demo", "Run a demo: a Postgres of its own, a broker, a worker, two playbooks."),
    "migrate": Entry("migrate", "Bring the database's schema up to date."),
    "validate": Entry("playbooks", "Check playbooks without a database."),
    "register": Entry("playbooks", "Register playbooks; changed content makes a new version."),
    "schema": Entry("schema", "Print the JSON Schema of playbooks, for editors."),
    "limit": Entry("limit", "Limit jobs: how many of a key run at a time, how many begin in a second.", is_group=True),
    "step-type": Entry("step_types", "List, add and remove the step types of your own workers."),
    "run": Entry("run", "Run the broker until it is stopped."),
    "console": Entry("console", "Serve the console and the HTTP API until stopped."),
    "token": Entry("token", "Create, list and revoke tokens of the HTTP API."),
    "worker": Entry("worker", "Run the reference worker: lease jobs, run them, report results."),
    "start": Entry("start_cancel", "Start an execution of a playbook."),
    "cancel": Entry("start_cancel", "Cancel an execution and its children."),
    "signal": Entry("signal", "Send a signal to the executions that wait for it."),
    "approvals": Entry("approvals", "List what waits for a person's decision, oldest first."),
    "approve": Entry("approvals", "Approve what waits in a step of an execution."),
    "reject": Entry("approvals", "Reject what waits in a step of an execution."),
    "schedule": Entry(
        "schedule", "Start playbooks at given times: put, list, pause and backfill schedules.", is_group=True
    ),
    "pause": Entry("pause_resume", "Pause executions, or queue the new executions of a playbook."),
    "resume": Entry("pause_resume", "Resume paused executions, or the new executions of a playbook."),
    "executions": Entry("inspect", "List executions, newest first; those of blocks below their parents."),
    "status": Entry("inspect", "Show the state of an execution, step by step."),
    "events": Entry("inspect", "Show the events of an execution in the order of its turns."),
    "logs": Entry("logs", "Show what the steps of an execution printed and logged, by time."),
    "explain": Entry("explain", "Explain why a step ran, why it did not, or what it waits for."),
    "dead-letters": Entry("retry", "List dead letters: events on which deciding failed, oldest first."),
    "reevaluate": Entry("retry", "Give dead letters and lost mail back to the broker."),
    "retry": Entry("retry", "Retry failed executions, each as a new execution from its failed step."),
    "fork": Entry("fork", "Start an execution from a step of another, with its results."),
    "undo": Entry("undo", "Undo what is left of an execution that has ended, in a new execution."),
    "abandon": Entry("undo", "Give up the undo of an execution: it fails, and lists what is left."),
    "graph": Entry("graph", "Draw a playbook, or an execution with the path it took."),
    "replay": Entry("replay.command", "Replay every decision of executions and report differences."),
    "verify": Entry("verify", "Check the invariants of stored executions."),
    "archive": Entry("archive", "Archive old history by whole periods; nothing is deleted."),
    "doctor": Entry("doctor", "Find what keeps brokers from working, and say what to do."),
    "completion": Entry("completion", "Print a completion script for bash, zsh or fish."),
    "config": Entry("config", "Show the settings and where each comes from."),
}
