"""What registration says about the programs of python steps."""

from __future__ import annotations

import pytest

from noetl_broker.playbook import PlaybookRules, compile_playbook
from tests.playbook.documents import HEAD, compiled, findings_of_programs

TAKES = "write def main(): …, with a parameter for each input"


def program(code: str, more: str = "") -> str:
    """Return a document with one python step, its code as a block that begins in line 5."""
    lines = "\n".join(f"    {line}" for line in code.splitlines())
    return f"workflow:\n- {{step: start, next: a}}\n- step: a\n  type: python{more}\n  code: |\n{lines}\n"


def findings(code: str, more: str = "") -> list[str]:
    """Return the findings of such a document; lines of the code count from 1, columns from the margin of the block."""
    found = []
    for line in findings_of_programs(program(code, more)):
        at, _, rest = line.partition(" ")
        row, column = map(int, at.split(":"))
        shift = 5 + more.count("\n")
        found.append(f"{row - shift}:{column - 4} {rest}")
    return found


def test_a_syntax_error_has_its_line_in_the_document() -> None:
    """And its column, with the version of Python that read it."""
    [found] = findings("def main():\n\n  return 1 +")
    assert found.startswith(
        "3:13 error bad-code workflow[1].code: the code of the python step `a` does not compile: invalid syntax "
        "(correct it; it was read as Python 3."
    )


@pytest.mark.parametrize(
    "code, at",
    [
        ("code: 'def main(x: return x'", "3:46"),
        ("code: def main(x) return 1", "3:45"),
        ('code: "def main():\\n return ("', "3:33"),
        ("code_b64: ZGVmIG1haW4oOg==", "3:37"),
    ],
)
def test_the_code_may_be_written_in_other_ways(code: str, at: str) -> None:
    """Where its lines are not those of the document, the error is at the key."""
    [found] = findings_of_programs(f"workflow:\n- {{step: start, next: a}}\n- {{step: a, type: python, {code}}}\n")
    assert found.startswith(f"{at} error bad-code"), found


@pytest.mark.parametrize(
    "code",
    [
        "def main(): return 1",
        "async def main(): return 1",
        "result = 1",
        "main = print",
        "if True:\n  def main(): pass\nelse:\n  main = None",
        "import json as main",
        "from tools import *",
        "exec('def main(): pass')",
        "def start():\n  global main\n  main = 1\nstart()",
        "for result in (1, 2): pass",
        "with open('x') as result: pass",
        "try:\n  pass\nexcept OSError as main: pass",
        "(main := print)",
    ],
)
def test_code_with_a_main_or_a_result_is_accepted(code: str) -> None:
    """As the worker accepts it; where nobody can know, too."""
    assert findings(code) == []


@pytest.mark.parametrize(
    "code", ["# nothing", "def other(): return 1", "def run():\n  result = 1", "class A:\n  def main(self): pass"]
)
def test_code_without_a_main_is_refused(code: str) -> None:
    """It fails in every run."""
    [found] = findings(code)
    assert "error no-main workflow[1].code: the code of the python step `a` defines neither" in found
    assert TAKES in found


def test_a_parameter_that_no_input_fills_is_refused() -> None:
    """At the parameter."""
    assert findings("def main(x, y, *, z, w=1):\n  return x", "\n  args: {x: 1}") == [
        (
            "1:13 error missing-input workflow[1].code: main() of the python step `a` needs `y`, and no input gives it "
            "(add it to args (the inputs are: x), or give the parameter a default)"
        ),
        (
            "1:19 error missing-input workflow[1].code: main() of the python step `a` needs `z`, and no input gives it "
            "(add it to args (the inputs are: x), or give the parameter a default)"
        ),
    ]


@pytest.mark.parametrize(
    "main, more",
    [
        ("def main(x)", "\n  args: {x: 1}"),
        ("def main(input_data)", ""),
        ("def main(context, workload, execution_id)", ""),
        ("def main(**inputs)", "\n  args: {x: 1}"),
        ("def main(*more)", ""),
        ("def main(x)", '\n  args: "{{ workload }}"'),
        ("@decorate\ndef main(x)", ""),
        ("def main(result)", '\n  args: {result: "{{ secret.a }}"}'),
        ("def main(result)", '\n  env: {A: "{{ secret.a }}"}'),
    ],
)
def test_what_the_worker_fills_is_no_input_that_lacks(main: str, more: str) -> None:
    """All inputs, the context, a template that may give any name."""
    assert findings(f"{main}:\n  return 1", more) == []


def test_inputs_of_transitions_count() -> None:
    """One that some transition gives is not refused: others may not lead there."""
    body = """
    workflow:
    - {step: start, next: [{step: a, args: {x: 1}}, b]}
    - {step: b, type: python, code: "def main(): return 1", next: {step: a, args: {y: 2}}}
    - {step: a, type: python, code: "def main(x, y, z=0): return 1"}
    """
    assert findings_of_programs(body) == []


def test_an_input_that_nothing_reads_is_warned_of() -> None:
    """Code and templates may read inputs by name."""
    more = '\n  args: {x: 1, y: 2, z: 3, w: 4}\n  env: {Z: "{{ z }}"}'
    assert findings("def main(x):\n  return y", more) == [
        (
            "1:1 warning unused-input workflow[1].code: main() of the python step `a` does not take the input `w` "
            "(add a parameter, or remove the input)"
        )
    ]


@pytest.mark.parametrize("keys", ["", "distribute: true, "])
def test_the_task_of_an_iterator_is_looked_into(keys: str) -> None:
    """Only the broker knows the inputs of an item that it makes itself."""
    body = f"""
    workflow:
    - {{step: start, next: each}}
    - step: each
      type: iterator
      collection: [1]
      element: n
      {keys.replace(", ", "")}
      task: {{type: python, args: {{v: "{{{{ n }}}}"}}, code: "def main(v, m): return v"}}
    """
    found = findings_of_programs(body)
    assert [line.split()[2] for line in found] == (["missing-input"] if keys else [])
    [wrong] = findings_of_programs(body.replace("def main(v, m): return v", "def mian(): return 1"))
    assert "no-main" in wrong


def test_a_registered_version_is_never_refused_for_its_program() -> None:
    """A broker compiles it as before."""
    for code in ("def main(", "x = 1", "def main(y): return 1"):
        assert compile_playbook(HEAD + program(code), rules=PlaybookRules()).steps["a"].kind == "action"


@pytest.mark.parametrize(
    "code",
    [
        "(" * 5_000,
        "-" * 50_000 + "1",
        "[" * 90 + "]" * 90,
        "x = " + "a." * 20_000 + "b",
        "main = " + "+".join("1" * 9_000),
    ],
)
def test_a_hostile_program_ends(code: str) -> None:
    """In a finding, or in none."""
    assert len(findings(code)) <= 1


def test_unknown_keys_are_refused() -> None:
    """The hint has a known key that is near. A registered version still compiles."""
    body = """
    metadta: {}
    workflow:
    - {step: start, nxt: a}
    - {step: a, type: python, code: "def main(): return 1", tmeout: 3, notes: x, next: [{step: end, wehn: "{{ 1 }}"}]}
    - {step: end}
    """
    found = [line for line in findings_of_programs(body) if "unknown-key" in line]
    assert [(line.split()[1], line.split("`")[1]) for line in found] == [
        ("error", "metadta"),
        ("error", "nxt"),
        ("error", "tmeout"),
        ("error", "notes"),
        ("error", "wehn"),
    ]
    assert "(did you mean `next`?)" in found[1]
    assert compiled(body).steps["start"].next == ()
