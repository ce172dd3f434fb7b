"""The exceptions of the program, by whose fault they are.

A message is one sentence for people: what is wrong with which value, where, and what to do.
"""

from __future__ import annotations

from typing import Any

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69
EXIT_UNENDED = 75
EXIT_NO_PERMISSION = 77
EXIT_SCHEMA = 78


class BrokerError(Exception):
    """Base of all; a command that it reaches exits with `exit_code`."""

    exit_code = EXIT_FAILED


class PlaybookFault(BrokerError):
    """A fault of a playbook or its data: its execution fails with this reason."""


class JobFailed(PlaybookFault):
    """Raised by the function of a job to fail it; also an answer in `simulate`.

    `kind` is the `type` of the step's error. With `retryable` false the job is never retried, whatever `retry` says.
    `details` are more keys of the error, such as the `status_code` that `retry_when` reads. Values that JSON cannot
    hold become text.
    """

    def __init__(
        self, message: str | Exception, *, kind: str = "failure", retryable: bool = True, **details: Any
    ) -> None:
        """Take a message for people and the fields for programs."""
        super().__init__(message)
        self.message = str(message)  # an exception is a message too
        self.kind = kind
        self.retryable = retryable
        self.details = details


class OperatorFault(BrokerError):
    """A wrong setting, argument or file, which the operator corrects."""

    exit_code = EXIT_USAGE


class UnknownStepFault(OperatorFault):
    """A name that is of no step, or of no visit, of the execution or playbook that was given."""


class NotFoundFault(BrokerError):
    """A name or id that does not exist."""


class ErasedFault(BrokerError):
    """An execution whose values were erased, where a request needs them."""

    def __init__(self, execution_id: int) -> None:
        """Take its id."""
        super().__init__(
            f"execution {execution_id} was erased: its values are gone; "
            f"noetl-broker status {execution_id} shows what is kept"
        )


class OversizeFault(BrokerError):
    """The turns of a batch write more than the server takes in one statement."""


class HistoryFault(BrokerError):
    """A history that cannot be replayed; `reason` is without the execution's id."""

    def __init__(self, execution_id: int, reason: str) -> None:
        """Take the reason as a part of a sentence."""
        super().__init__(f"execution {execution_id} cannot be replayed: {reason}")
        self.reason = reason


class DatabaseFault(BrokerError):
    """The database cannot be reached or does not answer; `sqlstate` is its reason for refusing, if it gave one."""

    exit_code = EXIT_UNAVAILABLE
    sqlstate: str | None = None


class MovedFault(DatabaseFault):
    """The bucket is on another node of Citus now. Nothing was done; a new connection goes there."""

    sqlstate = "NB503"


class PermissionFault(DatabaseFault):
    """A right is missing in the database."""

    exit_code = EXIT_NO_PERMISSION


class SchemaFault(DatabaseFault):
    """This version does not serve the schema in the database."""

    exit_code = EXIT_SCHEMA


class ForbiddenFault(BrokerError):
    """A caller whose role does not allow what was asked."""

    exit_code = EXIT_NO_PERMISSION
