"""Jinja without a clock, a die or a door: the templates of playbooks."""

from noetl_broker.template.allowance import MAX_OUTPUT_CHARS, MAX_SOURCE_CHARS, MAX_STEPS, Allowance
from noetl_broker.template.closed import closed
from noetl_broker.template.fault import TemplateError
from noetl_broker.template.fuel import Evaluation
from noetl_broker.template.grammar import SAVE_WORDS, WORKER_WORDS
from noetl_broker.template.numbers import number_of, read_integer, read_real
from noetl_broker.template.render import Template, compile_condition, compile_text, hand_on
from noetl_broker.template.scope import (
    JSON,
    OLD_WORKLOAD_WORD,
    UNDEFINED,
    WORKLOAD_WORDS,
    Lazy,
    Moment,
    NotLoaded,
    Scope,
    StepResult,
    unwrap,
    wrap,
)
from noetl_broker.template.tree import Leave, Path, Tree, compile_tree, read_by_text
from noetl_broker.template.truth import is_true

__all__ = [
    "JSON",
    "MAX_OUTPUT_CHARS",
    "MAX_SOURCE_CHARS",
    "MAX_STEPS",
    "OLD_WORKLOAD_WORD",
    "SAVE_WORDS",
    "UNDEFINED",
    "WORKER_WORDS",
    "WORKLOAD_WORDS",
    "Allowance",
    "Evaluation",
    "Lazy",
    "Leave",
    "Moment",
    "NotLoaded",
    "Path",
    "Scope",
    "StepResult",
    "Template",
    "TemplateError",
    "Tree",
    "closed",
    "compile_condition",
    "compile_text",
    "compile_tree",
    "hand_on",
    "is_true",
    "number_of",
    "read_by_text",
    "read_integer",
    "read_real",
    "unwrap",
    "wrap",
]
