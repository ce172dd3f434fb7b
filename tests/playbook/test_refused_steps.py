"""What is refused on a step: its type, its workbook action, its values."""

from __future__ import annotations

import pytest

from noetl_broker.playbook import Rules
from tests.playbook.documents import compiled, told


def test_a_type_is_known() -> None:
    """A misspelt type is refused with the nearest one."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: pithon, code: "x"}
    """
    assert told(source) == [
        (
            "4:21 error unknown-type workflow[1].type: the type `pithon` is not known (did you mean "
            "`python`? a type that your own workers run goes into the setting extra_step_types)"
        ),
    ]


def test_a_type_of_the_operators_own_needs_the_setting() -> None:
    """The hint names the setting."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, tool: dbt}
    """
    assert told(source) == [
        (
            "4:21 error unknown-type workflow[1].tool: the type `dbt` is not known (a type that your own "
            "workers run goes into the setting extra_step_types)"
        ),
    ]


def test_a_type_is_a_name() -> None:
    """A mapping (of a newer dialect) is refused."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, tool: {kind: python}}
    """
    assert told(source) == [
        "4:21 error bad-type workflow[1].tool: `tool` is a mapping (write the name of a type)",
    ]


def test_type_and_tool_are_one_key() -> None:
    """Two aliases that differ contradict each other."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: http, tool: python, url: x}
    """
    assert told(source) == [
        "4:33 error bad-type workflow[1].tool: `tool` says 'python' and `type` says 'http' (keep one)",
    ]


def test_a_workbook_action_exists() -> None:
    """A misspelt action is refused with the nearest one."""
    source = """
    workbook:
      - {name: fetch, type: http, url: x}
    workflow:
      - {step: start, next: a}
      - {step: a, type: workbook, name: fetsh}
    """
    assert told(source) == [
        "6:37 error unknown-action workflow[1].name: the workbook has no action `fetsh` (did you mean `fetch`?)",
    ]


def test_a_workbook_step_needs_a_workbook() -> None:
    """There is none to look in."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: workbook, task: fetch}
    """
    assert told(source) == [
        (
            "4:37 error unknown-action workflow[1].task: the workbook has no action `fetch` (the playbook "
            "has no workbook)"
        ),
    ]


def test_a_workbook_step_names_its_action() -> None:
    """Neither `task` nor `name` is given."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: workbook}
    """
    assert told(source) == [
        (
            "4:5 error unknown-action workflow[1].name: the workbook step `a` names no action (write task: "
            "name-of-the-action)"
        ),
    ]


def test_a_workbook_action_has_a_type() -> None:
    """Without one no worker can run it."""
    source = """
    workbook:
      - {name: fetch, url: x}
    workflow:
      - {step: start, next: a}
      - {step: a, type: workbook, task: fetch}
    """
    assert told(source) == [
        "3:5 error bad-type workbook[0]: the workbook action `fetch` has no type (write type: python, http, …)",
    ]


def test_templates_compile() -> None:
    """Each bad string is an error of its own."""
    source = """
    workload: {x: 1}
    workflow:
      - {step: start, next: a}
      - {step: a, type: http, url: "{{ x", headers: {a: "{{ x | nope }}"}}
    """
    assert told(source) == [
        (
            "5:32 error bad-template workflow[1].url: the template `{{ x` does not compile: unexpected end "
            "of template, expected 'end of print statement' (write text with {{ expression }} in it)"
        ),
        (
            "5:53 error bad-template workflow[1].headers.a: the template `{{ x | nope }}` does not compile: "
            "there is no filter `nope` (write text with {{ expression }} in it)"
        ),
    ]


def test_a_template_has_the_length_that_the_operator_allows() -> None:
    """In a text and in a condition; a text without a template may be longer."""
    source = """
    workflow:
      - {step: start, next: [{when: "1 == 1 or 2 == 2 or 3 == 3", step: a}]}
      - {step: a, type: http, url: "{{ execution_id }}/and/more", headers: {a: "a long text without a template"}}
    """
    limit = "characters long, more than the allowed 20 (template_max_source_chars)"
    assert told(source, Rules(template_max_source_chars=20)) == [
        (
            f"3:33 error bad-when workflow[0].next[0].when: bad `when`: it is 26 {limit} "
            '(write when: "{{ expression }}")'
        ),
        (
            "4:32 error bad-template workflow[1].url: the template `{{ execution_id }}/and/more` does not compile: "
            f"it is 27 {limit} (write text with {{{{ expression }}}} in it)"
        ),
    ]
    assert told(source, Rules(template_max_source_chars=27)) == []


def test_a_playbook_has_not_too_many_templates() -> None:
    """Those that differ count, and the first beyond the bound is named."""
    source = """
    workload: {w: ["{{ 1 }}", "{{ 1 }}", "{{ 2 }}"]}
    workflow:
      - {step: start, next: [{when: "3", step: a}]}
      - {step: a, type: http, url: "{{ 4 }}", headers: {a: "{{ 5 }}"}}
    """
    assert told(source, Rules(max_templates=5)) == []
    assert [line.split(" (")[0] for line in told(source, Rules(max_templates=2))] == [
        "5:52 error too-many-templates workflow[1].headers: it has more than 2 different templates",
    ]


def test_a_retry_has_a_form() -> None:
    """Every wrong key of every retry is told."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: http, url: x, retry: many, next: b}
      - {step: b, type: http, url: x, retry: 0, next: c}
      - step: c
        type: http
        url: x
        retry: {max_attempts: "3", initial_delay: -1, jitter: 1, retry_wen: x, retry_when: "a b", on_success: {}}
    """
    assert told(source) == [
        (
            "4:42 error bad-retry workflow[1].retry: `retry` is a string (write true, false, a number of "
            "attempts, or {max_attempts: 3, …})"
        ),
        (
            "5:42 error bad-retry workflow[2].retry: `retry` is 0, not an integer from 1 to 1000 (write an "
            "integer from 1 to 1000)"
        ),
        (
            "9:27 error bad-retry workflow[3].retry.max_attempts: `max_attempts` is '3', not an integer from "
            "1 to 1000 (write it without quotes or template)"
        ),
        (
            "9:47 error bad-retry workflow[3].retry.initial_delay: `initial_delay` is -1, not a number from "
            "0 to 31536000 (write a number from 0 to 31536000)"
        ),
        "9:59 error bad-retry workflow[3].retry.jitter: `jitter` is 1, not true or false (write true or false)",
        (
            "9:62 error bad-retry workflow[3].retry.retry_wen: the key `retry_wen` means nothing in `retry` "
            "(did you mean `retry_when`?)"
        ),
        (
            "9:88 error bad-retry workflow[3].retry.retry_when: bad `retry_when`: expected token 'end of "
            "print statement', got 'b' (write retry_when: \"{{ expression }}\")"
        ),
        (
            "9:95 error bad-retry workflow[3].retry.on_success: the key `on_success` means nothing in "
            "`retry` (the broker does not repeat a step that succeeded: make a loop of steps with a condition)"
        ),
    ]


def test_small_values_have_bounds_and_words() -> None:
    """Join, mode, reaction, time limit and priority."""
    source = """
    workflow:
      - {step: start, next: a, join: some}
      - {step: a, type: http, url: x, next_mode: first, on_error: stop, timeout: 0, priority: high, join: 3}
    """
    assert told(source) == [
        "3:34 error bad-value workflow[0].join: `join` is some, not one of all, any, each (the default is all)",
        (
            "4:46 error bad-value workflow[1].next_mode: `next_mode` is first, not one of inclusive, "
            "exclusive (the default is inclusive)"
        ),
        (
            "4:63 error bad-value workflow[1].on_error: `on_error` is stop, not one of fail, continue (the "
            "default is fail)"
        ),
        (
            "4:78 error bad-value workflow[1].timeout: `timeout` is 0, not a number from 0.001 to 31536000 "
            "(write a number from 0.001 to 31536000)"
        ),
        (
            "4:91 error bad-value workflow[1].priority: `priority` is 'high', not an integer from -32768 to "
            "32767 (write it without quotes or template)"
        ),
        ("4:103 error bad-value workflow[1].join: `join` is a number, not one of all, any, each (the default is all)"),
    ]


def test_a_playbook_step_says_which_playbook() -> None:
    """Without a path there is no child."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: playbook}
    """
    assert told(source) == [
        (
            "4:5 error missing-key workflow[1].path: the playbook step `a` has no `path` (write path: "
            "folder/of/the/playbook)"
        ),
    ]


@pytest.mark.parametrize(
    "keys, told_of",
    [
        ("path: 5", "path: `path` is a number, not the path of a playbook (write path: folder/of/the/playbook)"),
        ("path: p, version: 0", "version: `version` is 0, not a whole number from 1 to 2147483647"),
        ("path: p, version: 1.5", "version: `version` is 1.5, not a whole number from 1 to 2147483647"),
        ("path: p, version: 2147483648", "version: `version` is 2147483648, not a whole number from 1 to 2147483647"),
        ("path: p, version: '0'", "version: `version` is '0', not a whole number from 1 to 2147483647"),
        ("path: p, version: '2.0'", "version: `version` is '2.0', not a whole number from 1 to 2147483647"),
        ("path: p, version: '2'", ""),
        ("path: p, version: [1]", "version: `version` is a list, not a whole number from 1 to 2147483647"),
        ("path: p, version: '{{ x + }}'", "version: the template `{{ x + }}` does not compile: "),
        ("path: p, return_step: 7", "return_step: `return_step` is a number, not the name of a step"),
        ("path: p, return_step: [a]", "return_step: `return_step` is a list, not the name of a step"),
        ("path: p, version: 1, return_step: a", ""),
        ("path: p, version: '{{ workload.x }}', return_step: '{{ workload.x }}'", ""),
        ("path: p, version: null, return_step: null", ""),
    ],
)
def test_a_call_of_a_playbook_that_can_never_work_is_refused(keys: str, told_of: str) -> None:
    """A constant of the wrong kind, or out of bounds; what a template gives is seen when it is rendered."""
    found = told(f"""
    workload: {{x: 1}}
    workflow: [{{step: start, next: a}}, {{step: a, type: playbook, {keys}}}]
    """)
    assert len(found) == bool(told_of)
    assert all(f"workflow[1].{told_of}" in line for line in found)


@pytest.mark.parametrize(
    "keys, doubled",
    [
        ('type: postgres, command: "select 1", sql: "select 2"', "`sql` says again what `command` says"),
        ('type: postgres, sql: "select 2", command: "select 1"', "`command` says again what `sql` says"),
        ('type: duckdb, command: "select 1", command_b64: eA==', "`command_b64` says again what `command` says"),
        (
            'type: postgres, commands: ["select 1"], commands_b64: [eA==]',
            "`commands_b64` says again what `commands` says",
        ),
        ("type: python, code: x, code_b64: eA==", "`code_b64` says again what `code` says"),
        ("type: dbt, command: x, sql: y", "`sql` says again what `command` says"),
        ('type: postgres, command: "select 1", sql: null', ""),
        ("type: python, code: x, loop: {collection: [1], element: n}, script: {}", ""),
    ],
)
def test_a_program_text_stands_under_one_word(keys: str, doubled: str) -> None:
    """A job has it under one name, and one of two would be lost."""
    first, second = (doubled.split("`")[place] for place in (3, 1)) if doubled else ("", "")
    found = told(
        f"""
    workflow: [{{step: start, next: a}}, {{step: a, {keys}}}]
    """,
        Rules(extra_step_types=frozenset({"dbt"})),
    )
    assert [line.partition(" ")[2] for line in found] == [
        f"error doubled-text workflow[1].{second}: {doubled} (keep `{first}`, or keep `{second}`)"
    ] * bool(doubled)


@pytest.mark.parametrize(
    "keys, wrong",
    [
        ("type: python, code: {a: 1}", "code: `code` is a mapping, not the text of a program"),
        ("type: python, code: [x]", "code: `code` is a list, not the text of a program"),
        ("type: python, code_b64: 5", "code_b64: `code_b64` is a number, not the text of a program"),
        ("type: postgres, command: {a: 1}", "command: `command` is a mapping, not the text of a program"),
        ("type: snowflake, sql: 5", "sql: `sql` is a number, not the text of a program"),
        ("type: postgres, commands: {a: 1}", "commands: `commands` is a mapping, not the text of a program"),
        ("type: postgres, commands: [a, b]", ""),
        ("type: postgres, command: [a, b]", ""),
        ("type: container, image: x, command: [a, b]", ""),
        ("type: python, script: {path: x.py}", ""),
        ("type: http, url: u, body: {code: {a: 1}}", ""),
    ],
)
def test_a_program_is_text(keys: str, wrong: str) -> None:
    """Of the types that run one; also in the task of an iterator."""
    tail = "(write the program itself, as one text)"
    alone = told(f"""
    workflow: [{{step: start, next: a}}, {{step: a, {keys}}}]
    """)
    inside = told(f"""
    workflow: [{{step: start, type: iterator, collection: [1], element: n, task: {{{keys}}}}}]
    """)
    assert [line.partition(" ")[2] for line in alone] == [f"error bad-value workflow[1].{wrong} {tail}"] * bool(wrong)
    assert [line.partition(" ")[2] for line in inside] == [f"error bad-value workflow[0].task.{wrong} {tail}"] * bool(
        wrong
    )


def of_retry(conditions: str) -> str:
    """A playbook whose one step has these conditions of another attempt, from line 4, column 29."""
    return f"""
    workflow:
    - {{step: start, type: http, url: x,
       retry: {{max_attempts: 2, {conditions}}}}}
    """


@pytest.mark.parametrize(
    "condition, read, what, instead",
    [
        ("error.type == 'x'", "error.type", "`error` is a text, the message of the error", "error_type"),
        ("error['type'] == 'x'", "error.type", "`error` is a text, the message of the error", "error_type"),
        ("error.get('kind')", "error.kind", "`error` is a text, the message of the error", "error_type"),
        ("error.status_code > 500", "error.status_code", "`error` is a text, the message of the error", "status_code"),
        ("error.message", "error.message", "`error` is a text, the message of the error", "error"),
        ("error.why | default('')", "error.why", "`error` is a text, the message of the error", "error"),
        ("status_code.x == 1", "status_code.x", "`status_code` is a number", "status_code"),
        ("status_code[0] == 5", "status_code.0", "`status_code` is a number", "status_code"),
        ("attempt.number < 2", "attempt.number", "`attempt` is a number", "attempt"),
        ("error_type.name == 'x'", "error_type.name", "`error_type` is a text", "error_type"),
    ],
)
@pytest.mark.parametrize("word", ["retry_when", "stop_when"])
def test_a_retry_reads_no_key_of_a_text_or_a_number(
    condition: str, read: str, what: str, instead: str, word: str
) -> None:
    """It would never be there: the finding says what to write."""
    found = f"4:{31 + len(word)} error bad-retry workflow[0].retry.{word}: `{word}` reads `{read}`, and {what}"
    remedy = f"write `{instead}`; a condition of a retry finds error, error_type, status_code, attempt and result"
    assert told(of_retry(f'{word}: "{{{{ {condition} }}}}"')) == [f"{found} ({remedy})"]


@pytest.mark.parametrize(
    "condition",
    [
        "error[0] == 'x' and error[:3] == 'abc'",
        "error.lower().startswith('busy') or error_type.endswith('Timeout')",
        "result.error.type == 'x' and result.data.status_code == 500",
        "error is defined and error.type is not defined",
        "args.error.type == 'x' and workload.attempt.y",
        "status_code >= 500 and attempt < 3 and error_type in ['timeout', '']",
    ],
)
def test_a_retry_reads_all_that_is_there(condition: str) -> None:
    """Characters and methods of a text, keys of the result, whatever inputs have."""
    assert told(of_retry(f'retry_when: "{{{{ {condition} }}}}"')) == []


def test_a_step_called_as_a_word_of_a_retry_has_keys() -> None:
    """The step hides the word, and there is a warning for that."""
    source = """
    workflow:
    - {step: start, type: http, url: x, next: error}
    - {step: error, type: http, url: x, retry: {max_attempts: 2, retry_when: "{{ error.type == 'x' }}"}}
    """
    assert [line.split()[2] for line in told(source)] == ["shadowed-name"]


def test_what_is_in_the_catalog_compiles_with_a_key_of_a_word() -> None:
    """Only registration refuses it: an execution goes on as it did, and fails to try again."""
    assert compiled(of_retry("retry_when: error.type == 'x'")).start.retry is not None
