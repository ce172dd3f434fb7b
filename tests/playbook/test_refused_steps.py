"""Errors of steps: type, workbook action, values."""

from __future__ import annotations

import pytest

from noetl_broker.playbook import PlaybookRules
from tests.playbook.documents import compiled, findings_of


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
