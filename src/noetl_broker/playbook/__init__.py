"""Playbooks: read from YAML with positions, checked, and compiled for the core."""

from noetl_broker.playbook.compile import compile_playbook
from noetl_broker.playbook.diagnostics import Finding, PlaybookError, PlaybookRules
from noetl_broker.playbook.lint.lint import check, compile_new
from noetl_broker.playbook.model import Playbook

__all__ = ["Finding", "Playbook", "PlaybookError", "PlaybookRules", "check", "compile_new", "compile_playbook"]
