"""Random templates over random scopes break no rule.

`TEMPLATE_FUZZ_EXAMPLES=100000 TEMPLATE_FUZZ_FIRST=1 pytest -s tests/template/test_fuzz.py` is the long form; it prints
what the worst of them took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = int(os.environ.get("TEMPLATE_FUZZ_EXAMPLES", "300"))
FIRST = int(os.environ.get("TEMPLATE_FUZZ_FIRST", "0"))


def test_random_templates_give_json_within_their_bounds() -> None:
    """Nothing but JSON, and the same again the second time; no fault but the engine's own; time and memory as allowed.

    What a template is given stays as it is. The number of the one that breaks a rule is in the message.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    finished = subprocess.run(
        [sys.executable, "-m", "tests.template.fuzzing", str(FIRST), str(EXAMPLES)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    told = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [line for line in told if "broken" in line] == []
    assert finished.stderr == ""
    assert told[-1]["count"] == EXAMPLES
    print(told[-1])  # noqa: T201 - the long form is run to see it
