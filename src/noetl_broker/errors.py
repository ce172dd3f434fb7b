"""The few exceptions of the program, grouped by whose fault they are.

Every message is one clear sentence that names the value, the place and the remedy: it reaches a person as it is.
"""

from __future__ import annotations

from typing import Any

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69
EXIT_NO_PERMISSION = 77
EXIT_SCHEMA = 78


class BrokerError(Exception):
    """Base of all; `exit_code` is what a command ends with when it reaches the command line."""

    exit_code = EXIT_FAILED


class PlaybookFault(BrokerError):
    """The author of a playbook, or its data: ends that execution with a reason, and nothing else."""


class JobFailed(PlaybookFault):
    """What a function that does a job raises to say how it failed; in `simulate` an answer may be one.

    `kind` is the `type` of the error that the step carries. `retryable` false: the same job can never succeed, whatever
    the step's `retry` says. `details` are further keys of the error (`status_code` is one that `retry_when` reads); in
    a worker, what JSON has no type for becomes text.
    """

    def __init__(
        self, message: str | Exception, *, kind: str = "failure", retryable: bool = True, **details: Any
    ) -> None:
        """A sentence for people, and what programs read of it."""
        super().__init__(message)
        self.message = str(message)  # an exception is a message too
        self.kind = kind
        self.retryable = retryable
        self.details = details


class OperatorFault(BrokerError):
    """A setting, an argument, a file: the person at the command line mends it."""

    exit_code = EXIT_USAGE


class NotFoundFault(BrokerError):
    """What was asked for by name or id is not there."""


class OversizeFault(BrokerError):
    """What turns would write together is more than the server takes in one statement."""


class HistoryFault(BrokerError):
    """What is remembered of an execution does not suffice to take its turns again; `reason` without its id."""

    def __init__(self, execution_id: int, reason: str) -> None:
        """The reason is a part of a sentence."""
        super().__init__(f"execution {execution_id} cannot be replayed: {reason}")
        self.reason = reason


class DatabaseFault(BrokerError):
    """The database cannot be reached or does not answer; `sqlstate` is what it said at its door, where it said one."""

    exit_code = EXIT_UNAVAILABLE
    sqlstate: str | None = None


class PermissionFault(DatabaseFault):
    """The database refuses for want of rights."""

    exit_code = EXIT_NO_PERMISSION


class SchemaFault(DatabaseFault):
    """The schema in the database is not one that this version serves."""

    exit_code = EXIT_SCHEMA
