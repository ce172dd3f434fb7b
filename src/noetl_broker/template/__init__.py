"""Sandboxed Jinja for the templates of playbooks: no time, randomness or I/O."""

from noetl_broker.template.allowance import MAX_OUTPUT_CHARS, MAX_SOURCE_CHARS, MAX_STEPS, Allowance
from noetl_broker.template.budget import Evaluation
from noetl_broker.template.errors import TemplateError
from noetl_broker.template.grammar import SAVE_WORDS, WORKER_WORDS
from noetl_broker.template.numbers import number_of, read_integer, read_real
from noetl_broker.template.render import Template, compile_condition, compile_text, count_output, is_true
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
from noetl_broker.template.tree import Path, Tree, compile_tree, read_by_text

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
    "Moment",
    "NotLoaded",
    "Path",
    "Scope",
    "StepResult",
    "Template",
    "TemplateError",
    "Tree",
    "compile_condition",
    "compile_text",
    "compile_tree",
    "count_output",
    "is_true",
    "number_of",
    "read_by_text",
    "read_integer",
    "read_real",
    "unwrap",
    "wrap",
]
