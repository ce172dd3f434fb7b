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


def test_random_templates_give_json_within_the_limits() -> None:
    """A second evaluation gives the same.

    Inputs do not change. The message has the seed of a template that breaks a rule, or was the last one.
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
    reports = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [line for line in reports if "broken" in line] == []
    assert (finished.returncode, finished.stderr) == (0, ""), f"it ended at {reports[-1]}"
    assert reports[-1]["count"] == EXAMPLES
    print(reports[-1])
