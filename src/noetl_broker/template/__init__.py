"""Jinja without a clock, a die or a door: the templates of playbooks."""

from noetl_broker.template.fault import TemplateError
from noetl_broker.template.fuel import Bounds, bounds, set_bounds
from noetl_broker.template.grammar import SAVE_WORDS, WORKER_WORDS
from noetl_broker.template.render import Template, compile_condition, compile_text
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
)
from noetl_broker.template.tree import Leave, Path, Tree, compile_tree, read_by_text
from noetl_broker.template.truth import is_true

__all__ = [
    "JSON",
    "OLD_WORKLOAD_WORD",
    "SAVE_WORDS",
    "UNDEFINED",
    "WORKER_WORDS",
    "WORKLOAD_WORDS",
    "Bounds",
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
    "bounds",
    "compile_condition",
    "compile_text",
    "compile_tree",
    "is_true",
    "read_by_text",
    "set_bounds",
    "unwrap",
]
