"""Errors of steps: type, workbook action, values."""

from __future__ import annotations

import pytest

from noetl_broker.playbook import PlaybookRules
from tests.playbook.documents import compiled, findings_of


def test_an_unknown_step_type_is_refused() -> None:
    """The hint has the nearest type."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: pithon, code: "x"}
    """
    assert findings_of(source) == [
        (
            "4:21 error unknown-type workflow[1].type: the type `pithon` is not known (did you mean "
            "`python`? add a type of your own workers: noetl-broker step-type add, and give --dsn; or name it in the "
            "setting extra_step_types)"
        ),
    ]


def test_an_own_step_type_has_to_be_added() -> None:
    """The hint names the command and the setting."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, tool: dbt}
    """
    assert findings_of(source) == [
        (
            "4:21 error unknown-type workflow[1].tool: the type `dbt` is not known (add a type of your own "
            "workers: noetl-broker step-type add, and give --dsn; or name it in the setting extra_step_types)"
        ),
    ]


def test_a_step_type_that_is_not_a_name_is_refused() -> None:
    """Newer dialects have a mapping there."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, tool: {kind: python}}
    """
    assert findings_of(source) == [
        "4:21 error bad-type workflow[1].tool: `tool` is a mapping (write the name of a type)",
    ]


def test_different_values_of_type_and_tool_are_refused() -> None:
    """They are aliases."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: http, tool: python, url: x}
    """
    assert findings_of(source) == [
        "4:33 error bad-type workflow[1].tool: `tool` says 'python' and `type` says 'http' (keep one)",
    ]


def test_an_unknown_workbook_action_is_refused() -> None:
    """The hint has the nearest action."""
    source = """
    workbook:
      - {name: fetch, type: http, url: x}
    workflow:
      - {step: start, next: a}
      - {step: a, type: workbook, name: fetsh}
    """
    assert findings_of(source) == [
        "6:37 error unknown-action workflow[1].name: the workbook has no action `fetsh` (did you mean `fetch`?)",
    ]


def test_a_workbook_step_needs_a_workbook() -> None:
    """The document has none."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: workbook, task: fetch}
    """
    assert findings_of(source) == [
        (
            "4:37 error unknown-action workflow[1].task: the workbook has no action `fetch` (the playbook "
            "has no workbook)"
        ),
    ]


def test_a_workbook_step_without_an_action_is_refused() -> None:
    """It has neither `task` nor `name`."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: workbook}
    """
    assert findings_of(source) == [
        (
            "4:5 error unknown-action workflow[1].name: the workbook step `a` names no action (write task: "
            "name-of-the-action)"
        ),
    ]


def test_a_workbook_action_without_a_type_is_refused() -> None:
    """No worker can run it."""
    source = """
    workbook:
      - {name: fetch, url: x}
    workflow:
      - {step: start, next: a}
      - {step: a, type: workbook, task: fetch}
    """
    assert findings_of(source) == [
        "3:5 error bad-type workbook[0]: the workbook action `fetch` has no type (write type: python, http, …)",
    ]


def test_templates_that_do_not_compile_are_refused() -> None:
    """Each has its own error."""
    source = """
    workload: {x: 1}
    workflow:
      - {step: start, next: a}
      - {step: a, type: http, url: "{{ x", headers: {a: "{{ x | nope }}"}}
    """
    assert findings_of(source) == [
        (
            "5:32 error bad-template workflow[1].url: the template `{{ x` does not compile: unexpected end "
            "of template, expected 'end of print statement' (write text with {{ expression }} in it)"
        ),
        (
            "5:53 error bad-template workflow[1].headers.a: the template `{{ x | nope }}` does not compile: "
            "there is no filter `nope` (write text with {{ expression }} in it)"
        ),
    ]


def test_a_template_over_the_configured_length_is_refused() -> None:
    """In a text and in a condition. Plain text may be longer."""
    source = """
    workflow:
      - {step: start, next: [{when: "1 == 1 or 2 == 2 or 3 == 3", step: a}]}
      - {step: a, type: http, url: "{{ execution_id }}/and/more", headers: {a: "a long text without a template"}}
    """
    limit = "characters long, more than the allowed 20 (template_max_source_chars)"
    assert findings_of(source, PlaybookRules(template_max_source_chars=20)) == [
        (
            f"3:33 error bad-when workflow[0].next[0].when: bad `when`: it is 26 {limit} "
            '(write when: "{{ expression }}")'
        ),
        (
            "4:32 error bad-template workflow[1].url: the template `{{ execution_id }}/and/more` does not compile: "
            f"it is 27 {limit} (write text with {{{{ expression }}}} in it)"
        ),
    ]
    assert findings_of(source, PlaybookRules(template_max_source_chars=27)) == []


def test_a_playbook_with_too_many_templates_is_refused() -> None:
    """Different templates count. The error names the first one over the limit."""
    source = """
    workload: {w: ["{{ 1 }}", "{{ 1 }}", "{{ 2 }}"]}
    workflow:
      - {step: start, next: [{when: "3", step: a}]}
      - {step: a, type: http, url: "{{ 4 }}", headers: {a: "{{ 5 }}"}}
    """
    assert findings_of(source, PlaybookRules(max_templates=5)) == []
    assert [line.split(" (")[0] for line in findings_of(source, PlaybookRules(max_templates=2))] == [
        "4:33 error too-many-templates workflow[0].next[0].when: the playbook has more than 2 different templates",
    ]


def test_bad_keys_of_a_retry_are_refused() -> None:
    """Each of every retry is reported."""
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
    assert findings_of(source) == [
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
            "9:47 error bad-retry workflow[3].retry.initial_delay: `initial_delay` is -1, not a duration from "
            "0 to 31536000 seconds (write a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H)"
        ),
        "9:59 error bad-retry workflow[3].retry.jitter: `jitter` is 1, not true or false (write true or false)",
        (
            "9:62 error bad-retry workflow[3].retry.retry_wen: unknown key `retry_wen` in `retry` "
            "(did you mean `retry_when`?)"
        ),
        (
            "9:88 error bad-retry workflow[3].retry.retry_when: bad `retry_when`: expected token 'end of "
            "print statement', got 'b' (write retry_when: \"{{ expression }}\")"
        ),
        (
            "9:95 error bad-retry workflow[3].retry.on_success: unknown key `on_success` in "
            "`retry` (the broker does not repeat a step that succeeded: make a loop of steps with a condition)"
        ),
    ]


def test_values_out_of_their_bounds_are_refused() -> None:
    """Join, mode, reaction, time limit and priority."""
    source = """
    workflow:
      - {step: start, next: a, join: some}
      - {step: a, type: http, url: x, next_mode: first, on_error: stop, timeout: 0, priority: high, join: 3}
    """
    assert findings_of(source) == [
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
            "4:78 error bad-value workflow[1].timeout: `timeout` is 0, not a number of seconds, 90s, 15m, 2h30m, "
            "3d, 2w or P3DT12H, from 0.001 s to 365 days (write timeout: 90s, or a template that gives a duration)"
        ),
        (
            "4:91 error bad-value workflow[1].priority: `priority` is 'high', not an integer from -32768 to "
            "32767 (write it without quotes or template)"
        ),
        (
            "4:103 error bad-value workflow[1].join: `join` is a number, not one of all, any, each (the default is "
            "all; for a number of arrivals write {need: 2})"
        ),
    ]


def test_a_playbook_step_needs_a_path() -> None:
    """Without one there is no child."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: playbook}
    """
    assert findings_of(source) == [
        (
            "4:5 error missing-key workflow[1].path: the playbook step `a` has no `path` (write path: "
            "folder/of/the/playbook)"
        ),
    ]


@pytest.mark.parametrize(
    "keys, place",
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
def test_a_playbook_step_with_a_wrong_version_or_return_step_is_refused(keys: str, place: str) -> None:
    """A constant of the wrong type or out of range. Templates are checked when rendered."""
    found = findings_of(f"""
    workload: {{x: 1}}
    workflow: [{{step: start, next: a}}, {{step: a, type: playbook, {keys}}}]
    """)
    assert len(found) == bool(place)
    assert all(f"workflow[1].{place}" in line for line in found)


@pytest.mark.parametrize(
    "keys, doubled",
    [
        ('type: postgres, command: "select 1", sql: "select 2"', "`sql` repeats `command`"),
        ('type: postgres, sql: "select 2", command: "select 1"', "`command` repeats `sql`"),
        ('type: duckdb, command: "select 1", command_b64: eA==', "`command_b64` repeats `command`"),
        (
            'type: postgres, commands: ["select 1"], commands_b64: [eA==]',
            "`commands_b64` repeats `commands`",
        ),
        ("type: python, code: x, code_b64: eA==", "`code_b64` repeats `code`"),
        ("type: dbt, command: x, sql: y", "`sql` repeats `command`"),
        ('type: postgres, command: "select 1", sql: null', ""),
        ("type: python, code: x, loop: {collection: [1], element: n}, script: {}", ""),
    ],
)
def test_a_program_text_under_two_words_is_refused(keys: str, doubled: str) -> None:
    """A job has one program text."""
    first, second = (doubled.split("`")[place] for place in (3, 1)) if doubled else ("", "")
    found = findings_of(
        f"""
    workflow: [{{step: start, next: a}}, {{step: a, {keys}}}]
    """,
        PlaybookRules(extra_step_types=frozenset({"dbt"})),
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
def test_a_program_that_is_not_text_is_refused(keys: str, wrong: str) -> None:
    """On types that run one, and in the task of an iterator."""
    tail = "(write the program itself, as one text)"
    alone = findings_of(f"""
    workflow: [{{step: start, next: a}}, {{step: a, {keys}}}]
    """)
    inside = findings_of(f"""
    workflow: [{{step: start, type: iterator, collection: [1], element: n, task: {{{keys}}}}}]
    """)
    assert [line.partition(" ")[2] for line in alone] == [f"error bad-value workflow[1].{wrong} {tail}"] * bool(wrong)
    assert [line.partition(" ")[2] for line in inside] == [f"error bad-value workflow[0].task.{wrong} {tail}"] * bool(
        wrong
    )


def of_retry(conditions: str) -> str:
    """Return a playbook whose step has these retry conditions, from line 4, column 29."""
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
def test_a_retry_condition_that_reads_a_key_of_a_text_is_refused(
    condition: str, read: str, what: str, instead: str, word: str
) -> None:
    """A text has no keys. The hint has the right name."""
    found = f"4:{31 + len(word)} error bad-retry workflow[0].retry.{word}: `{word}` reads `{read}`, and {what}"
    remedy = f"write `{instead}`; a condition of a retry can read error, error_type, status_code, attempt and result"
    assert findings_of(of_retry(f'{word}: "{{{{ {condition} }}}}"')) == [f"{found} ({remedy})"]


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
def test_a_retry_condition_reads_its_words(condition: str) -> None:
    """Methods of a text, keys of the result, keys of inputs."""
    assert findings_of(of_retry(f'retry_when: "{{{{ {condition} }}}}"')) == []


def test_a_step_named_like_a_retry_word_has_keys() -> None:
    """The step hides the word, with a warning."""
    source = """
    workflow:
    - {step: start, type: http, url: x, next: error}
    - {step: error, type: http, url: x, retry: {max_attempts: 2, retry_when: "{{ error.type == 'x' }}"}}
    """
    assert [line.split()[2] for line in findings_of(source)] == ["shadowed-name"]


def test_a_registered_playbook_with_a_bad_retry_condition_compiles() -> None:
    """Only registration refuses it. Its executions do not retry."""
    assert compiled(of_retry("retry_when: error.type == 'x'")).start.retry is not None
