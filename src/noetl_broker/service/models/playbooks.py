"""What is asked about playbooks and types of steps, and what the answers have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictBool

from noetl_broker.playbook.diagnostics import Finding
from noetl_broker.service.models.actions import Which
from noetl_broker.service.models.base import LONGEST_TEXT, Given, Paged, Text, Version
from noetl_broker.service.models.executions import Form
from noetl_broker.service.models.values import Facts, Id, Moment

MOST_COMPARED = 1_000  # executions of one back-test
LONGEST_SOURCE = 1 << 20  # characters
PlaybookPath = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT, examples=["examples/weather"])]


class OnePath(Given):
    """A playbook."""

    path: PlaybookPath


class PageOfPath(OnePath, Paged):
    """A page of what one playbook has."""


class OneVersion(OnePath):
    """A version of a playbook."""

    version: Version | None = Field(None, description="default: the latest")


class PlaybookGraphRequest(OneVersion):
    """The graph of a version."""

    format: Form = "svg"


class CompareRequest(OnePath):
    """Two versions of a playbook."""

    version: Version
    other: Version


class PausePathRequest(OnePath):
    """A reason, which is stored with the pause."""

    reason: Text | None = None


class StepTypeRequest(Given):
    """A type of steps."""

    name: str = Field(pattern="^[A-Za-z_][A-Za-z0-9_.-]{0,62}$", description="not a type of the broker's own")


class RegisterRequest(Given):
    """The names and the texts of files with playbooks. `new_home`: their metadata.bucket may change."""

    files: list[tuple[str, str]]
    new_home: bool = False


class RegisterTextRequest(Given):
    """The text of a playbook. `new_home`: its metadata.bucket may change."""

    content: str = Field(max_length=LONGEST_SOURCE)
    new_home: StrictBool = False


class StepTypesRequest(Given):
    """Types of steps."""

    names: list[str]


class PlaybookView(BaseModel):
    """A version of a playbook."""

    path: str
    version: int
    catalog_id: Id
    name: str | None
    created_at: Moment


class Latest(PlaybookView):
    """The latest version of a path."""

    paused: bool = Field(description="its new executions are queued")


class Source(BaseModel):
    """The text of a version."""

    path: str
    version: int
    content: str


class DifferenceView(BaseModel):
    """A unified diff of two versions; empty where they are equal."""

    path: str
    version: int
    other: int
    diff: str


class ValidateRequest(Given):
    """The text of a playbook that is edited."""

    content: str = Field(max_length=LONGEST_SOURCE)
    strict: StrictBool = Field(default=False, description="warnings are errors")


class RegisteredText(BaseModel):
    """The version of the text, or what is wrong with it. `new` false: the latest version has this text."""

    findings: list[Finding]
    path: str | None = None
    version: int | None = None
    new: bool = False
    notes: list[str] = []


class Findings(BaseModel):
    """Whether it could be registered, and what is wrong."""

    valid: bool
    findings: list[Finding]


class BackTestRequest(Given):
    """An edited playbook, and the executions to compare with; without filters, the newest of its path."""

    content: str = Field(max_length=LONGEST_SOURCE)
    which: Which | None = None
    limit: int = Field(100, ge=1, le=MOST_COMPARED, description="executions, the newest first")
    ways_only: StrictBool = Field(default=False, description="other inputs of a job are not a difference")


class BackTested(BaseModel):
    """How many executions go the same way, and where the others diverge. With `findings` alone: it has errors."""

    findings: list[Finding] = Field(default_factory=list)
    path: str | None = None
    executions: int = 0
    same: int = 0
    still_running: int = 0
    parting: int = 0
    groups: list[Facts] = Field(default_factory=list)
    notes: list[dict[str, Any]] = Field(default_factory=list)
    unreadable: list[dict[str, Any]] = Field(default_factory=list)


class SimulateRequest(Given):
    """An edited playbook, its payload, and what its jobs answer."""

    content: str = Field(max_length=LONGEST_SOURCE)
    payload: dict[str, Any] = Field(default_factory=dict)
    answers: dict[str, Any] = Field(default_factory=dict, description="the result of each step that has a job, by step")
    failures: dict[str, str] = Field(
        default_factory=dict, description="steps whose jobs fail, with the message of the error"
    )
    approvals: dict[str, bool | None] = Field(
        default_factory=dict, description="decisions by step; null: nobody decides"
    )
    signals: list[dict[str, Any]] = Field(
        default_factory=list, description="signals to send: `name`, and perhaps `key`, `payload` and `after`"
    )


class SimulatedVisit(BaseModel):
    """A visit of a step in a simulation."""

    step: str
    visit: int = 1
    status: str
    inputs: dict[str, Any] = Field(default_factory=dict)
    result: Any = None
    error: Any = None


class Simulated(BaseModel):
    """How the simulation went. With `findings` alone: the playbook has errors."""

    findings: list[Finding] = Field(default_factory=list)
    path: str | None = None
    status: str | None = None
    result: Any = None
    error: Any = None
    waited_seconds: float = 0
    steps: list[SimulatedVisit] = Field(default_factory=list)
    children: list[Simulated] = Field(default_factory=list)


class PathPaused(BaseModel):
    """Whether new executions of a path are queued now, and whether that changed; `admitted`: queued ones that run."""

    path: str
    paused: bool
    changed: bool
    admitted: int = 0


class StepType(BaseModel):
    """A step type, and who added it."""

    name: str
    added_at: Moment
    added_by: str


class StepTypes(BaseModel):
    """All of them; they are few."""

    items: list[StepType]
    next: None = None


class StepTypeChange(BaseModel):
    """Whether something changed."""

    name: str
    changed: bool
