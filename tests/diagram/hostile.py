"""A playbook with hostile names, to break diagrams."""

from __future__ import annotations

import json

from noetl_broker.playbook import Playbook
from tests.stories import playbook

# Step names may hold all but `#`, `:` and control characters.
NAMES = (
    '"quoted"',
    "<script>alert(1)</script>",
    "]]> --> <!--",
    "&amp; &lt;",
    "' onload='alert(1)",
    "%%{init {}}%%",
    "`tick` $$x^2$$",
    "end]] |a| (b) {c}",
    "日本語",
)
CONDITION = "a == '<&>\"#quot;|\"'"


def hostile_playbook() -> Playbook:
    """A playbook whose step names, descriptions and conditions are hostile."""
    steps = [
        {"step": name, "type": "python", "code": "x", "desc": "<b>&", "next": [{"when": CONDITION, "step": "end"}]}
        for name in NAMES
    ]
    workflow = [{"step": "start", "next": [*NAMES]}, *steps, {"step": "end"}]
    return playbook(json.dumps({"workflow": workflow})[1:-1].replace('"workflow":', "workflow:", 1))
