"""Errors at the top of a document: keys, metadata, names."""

from __future__ import annotations

import pytest

from tests.playbook.documents import document_findings, findings_of


def test_all_missing_keys_are_reported_at_once() -> None:
    """Each has its own error."""
    source = """\
name: x
"""
    assert document_findings(source) == [
        "1:1 error missing-key : the playbook has no `apiVersion` (write apiVersion: noetl.io/v1)",
        "1:1 error missing-key : the playbook has no `kind` (write kind: Playbook)",
        "1:1 error missing-key : the playbook has no `workflow` (write workflow: [{step: start, next: …}])",
    ]


def test_wrong_api_version_kind_and_name_are_refused() -> None:
    """The error has the expected value."""
    source = """\
apiVersion: noetl.io/v2
kind: Workflow
metadata: {name: 3}
workflow: [{step: start}]
"""
    assert document_findings(source) == [
        (
            "1:13 error wrong-value apiVersion: `apiVersion` is noetl.io/v2, not noetl.io/v1 (write "
            "apiVersion: noetl.io/v1)"
        ),
        "2:7 error wrong-value kind: `kind` is Workflow, not Playbook (write kind: Playbook)",
        "3:18 error wrong-type metadata.name: `name` is a number (write name: a name)",
    ]


def test_a_playbook_without_a_name_and_path_is_refused() -> None:
    """Either gives the other."""
    source = """\
apiVersion: noetl.io/v1
kind: Playbook
workflow: [{step: start}]
"""
    assert document_findings(source) == [
        (
            "1:1 error missing-key metadata: the playbook has neither `metadata.name` nor `metadata.path` "
            "(write metadata: {name: …, path: folder/name})"
        ),
    ]


def test_names_and_paths_over_255_characters_are_refused() -> None:
    """255 characters are allowed."""
    long, longest = "n" * 256, "n" * 255
    source = f"""\
apiVersion: noetl.io/v1
kind: Playbook
metadata: {{name: {long}, path: {long}}}
workbook: [{{name: {long}, type: python, code: result = 1}}]
workflow:
- {{step: start, next: [{long}, {longest}]}}
- {{step: {long}, type: workbook, task: {long}}}
- {{step: {longest}, type: python, code: result = 1}}
"""
    remedy = "(shorten it, and write the rest in `desc`)"
    assert document_findings(source) == [
        f"3:18 error long-name metadata.name: the `name` has 256 characters; it may have 255 {remedy}",
        f"3:282 error long-name metadata.path: the `path` has 256 characters; it may have 255 {remedy}",
        (
            "4:19 error long-name workbook[0].name: the name of an action of the workbook has 256 characters; "
            f"it may have 255 {remedy}"
        ),
        f"7:10 error long-name workflow[1].step: the name of a step has 256 characters; it may have 255 {remedy}",
    ]


def test_metadata_has_bounds_and_known_keys() -> None:
    """Limits are numbers in range; a misspelt key is refused."""
    source = """\
apiVersion: noetl.io/v1
kind: Playbook
metadata: {name: x, max_visit: 3, max_visits: 0, deadline: soon, priority: 1.5}
workflow: [{step: start}]
"""
    assert document_findings(source) == [
        (
            "3:21 error unknown-key metadata.max_visit: unknown key `max_visit` in `metadata` "
            "(did you mean `max_visits`?)"
        ),
        (
            "3:47 error bad-value metadata.max_visits: `max_visits` is 0, not an integer from 1 to "
            "2147483647 (write an integer from 1 to 2147483647)"
        ),
        (
            "3:60 error bad-value metadata.deadline: `deadline` is 'soon', not a duration from 0.001 "
            "to 31536000 seconds (write a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H)"
        ),
        (
            "3:76 error bad-value metadata.priority: `priority` is 1.5, not an integer from -32768 to 32767 "
            "(write an integer from -32768 to 32767)"
        ),
    ]


def test_parts_of_a_wrong_type_are_refused() -> None:
    """The error has the expected type."""
    source = """\
apiVersion: noetl.io/v1
kind: Playbook
name: x
metadata: []
workload: 3
workbook: {}
workflow: [{step: start}]
"""
    assert document_findings(source) == [
        "4:11 error wrong-type metadata: `metadata` is a list, not a mapping (write a mapping)",
        "5:11 error wrong-type workload: `workload` is a number, not a mapping (write a mapping)",
        "6:11 error wrong-type workbook: `workbook` is a mapping, not a list (write a list)",
    ]


def test_a_document_that_is_not_a_mapping_is_refused() -> None:
    """A list is no playbook."""
    source = """\
- a
"""
    assert document_findings(source) == [
        "1:1 error wrong-type : the document is a list (a playbook is a mapping of keys)",
    ]


def test_workflow_and_steps_together_are_refused() -> None:
    """They are aliases."""
    source = """
    steps: [{step: start}]
    workflow: [{step: start}]
    """
    assert findings_of(source) == [
        "2:1 error duplicate-key steps: `steps` repeats `workflow` (keep one)",
    ]


def test_a_workflow_that_is_not_a_list_is_refused() -> None:
    """A mapping is no workflow."""
    source = """
    workflow: {step: start}
    """
    assert findings_of(source) == [
        "2:11 error wrong-type workflow: `workflow` is a mapping, not a list (write a list)",
    ]


def test_an_empty_workflow_key_is_refused() -> None:
    """A key without a value is no workflow."""
    source = """
    workflow:
    """
    assert findings_of(source) == [
        "2:10 error wrong-type workflow: `workflow` is null (write a list of steps)",
    ]


def test_duplicate_step_names_are_refused() -> None:
    """The error of the second step has the place of the first."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, next: end}
      - {step: a}
      - {step: end}
    """
    assert findings_of(source) == [
        (
            "5:12 error duplicate-step workflow[2].step: there are two steps `a`, the first on line 7 "
            "(rename one of them)"
        ),
    ]


def test_duplicate_action_names_are_refused() -> None:
    """In the workbook."""
    source = """
    workbook:
      - {name: fetch, type: http, url: x}
      - {name: fetch, type: http, url: y}
    workflow:
      - {step: start}
    """
    assert findings_of(source) == [
        "4:5 error duplicate-action workbook[1]: the workbook has two actions `fetch` (rename one)",
    ]


def test_a_workflow_without_a_start_is_refused() -> None:
    """No step can run."""
    source = """
    workflow:
      - {step: a, next: end}
      - {step: end}
    """
    assert findings_of(source) == [
        "2:1 error no-start workflow: the workflow has no step `start` (add {step: start, next: …})",
    ]


def test_step_names_with_characters_of_node_ids_are_refused() -> None:
    """`#`, `:` and control characters would break node ids."""
    source = """
    workflow:
      - {step: start, next: "a#b"}
      - {step: "a#b", next: "c:d"}
      - {step: "c:d", next: "e\tf"}
      - {step: "e\tf"}
    """
    assert findings_of(source) == [
        ("4:12 error bad-name workflow[1].step: the step name 'a#b' has the character '#' (use letters, digits and _)"),
        ("5:12 error bad-name workflow[2].step: the step name 'c:d' has the character ':' (use letters, digits and _)"),
        (
            "6:12 error bad-name workflow[3].step: the step name 'e\\tf' has the character '\\t' (use letters, "
            "digits and _)"
        ),
    ]


def test_a_step_without_a_name_is_refused() -> None:
    """A step that is not a mapping is too, each with its reason."""
    source = """
    workflow:
      - {step: start}
      - a
      - {desc: nameless}
      - {step: 3}
      - {step: ""}
    """
    assert findings_of(source) == [
        "4:5 error wrong-type workflow[1]: a step is a string, not a mapping (write step: name)",
        "5:5 error missing-key workflow[2]: a step has no `step` (write step: name)",
        "6:12 error wrong-type workflow[3].step: the name of a step is a number (write step: name)",
        "7:12 error wrong-type workflow[4].step: the name of a step is empty (write step: name)",
    ]


def test_all_errors_are_reported_at_once() -> None:
    """In document order."""
    source = """
    workflow:
      - {step: start, next: [x, y]}
      - {step: a, type: nope, next: {when: "", step: end}}
      - {step: end, next: a}
    """
    assert findings_of(source) == [
        "3:26 error unknown-step workflow[0].next[0]: there is no step `x` (known are: start, a, end)",
        "3:29 error unknown-step workflow[0].next[1]: there is no step `y` (known are: start, a, end)",
        (
            "4:21 error unknown-type workflow[1].type: the type `nope` is not known (did you mean `noop`? add a "
            "type of your own workers: noetl-broker step-type add, and give --dsn; or name it in the setting "
            "extra_step_types)"
        ),
        (
            "4:40 error bad-when workflow[1].next.when: bad `when`: a condition is empty: write an "
            'expression (write when: "{{ expression }}")'
        ),
        "5:23 error end-with-next workflow[2].next: `end` has a `next` (remove it, or rename the step)",
    ]


def test_unknown_keys_are_warned_of() -> None:
    """At the top, in `next` and on a step, with the nearest word or a remedy."""
    source = """
    workflows: 1
    workflow:
      - {step: start, next: [{step: a, whne: 1}, {step: a, if: 1}]}
      - {step: a, type: http, url: x, metod: GET, pass: "{{ x }}", vars: {y: 1}}
    """
    assert findings_of(source) == [
        ("2:1 error unknown-key workflows: unknown key `workflows` in a playbook (did you mean `workflow`?)"),
        ("4:36 error unknown-key workflow[0].next[0].whne: unknown key `whne` in `next` (did you mean `when`?)"),
        ("4:56 error unknown-key workflow[0].next[1].if: unknown key `if` in `next` (did you mean `when`?)"),
        ("5:35 error unknown-key workflow[1].metod: unknown key `metod` on the http step `a` (did you mean `method`?)"),
        (
            "5:47 warning unknown-key workflow[1].pass: unknown key `pass` on the http step `a` "
            "(the step always runs: put the condition into the `next` of the step before it)"
        ),
        (
            "5:64 warning unknown-key workflow[1].vars: unknown key `vars` on the http step `a` "
            "(the worker gets it unchanged, and the broker ignores it)"
        ),
    ]


def test_a_key_for_the_worker_on_a_step_without_worker_has_its_own_hint() -> None:
    """No worker reads it."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: playbook, path: p, vars: {y: 1}}
    """
    assert findings_of(source) == [
        (
            "4:40 warning unknown-key workflow[1].vars: unknown key `vars` on the playbook step `a` "
            "(no worker gets it, and the broker ignores it)"
        ),
    ]


def test_a_name_that_is_no_identifier_is_warned_of() -> None:
    """Templates read such a step through `results` only."""
    source = """
    workflow:
      - {step: start, next: "a b"}
      - {step: "a b"}
    """
    assert findings_of(source) == [
        (
            "4:12 warning bad-name workflow[1].step: the step name `a b` is not an identifier, so templates "
            "read it only as results['a b'] (use letters, digits and _)"
        ),
    ]


def test_a_schema_of_the_workload_is_checked_at_registration() -> None:
    """Each fault has its line."""
    body = """\
    workload_schema:
      properties:
        n: {type: int}
        m: {pattern: x}
    workflow:
    - {step: start, next: end}
    - {step: end}
    """
    assert findings_of(body) == [
        "3:15 error bad-schema workload_schema.properties.n.type: `int` is no type of JSON (write integer)",
        (
            "4:9 error bad-schema workload_schema.properties.m.pattern: the keyword `pattern` is not supported "
            "(list the values under `enum`, or bound the text by `minLength` and `maxLength`)"
        ),
    ]


@pytest.mark.parametrize("written", ["array", "[string, 'null']"])
def test_a_workload_schema_that_no_workload_fits_is_refused(written: str) -> None:
    """Every start would fail."""
    [found] = findings_of(f"workload_schema: {{type: {written}}}\nworkflow: [{{step: start}}]")
    assert found.startswith("1:25 error bad-schema workload_schema.type: the workload is an object, and `type` is ")
    assert findings_of("workload_schema: {type: [object, 'null']}\nworkflow: [{step: start}]") == []


def test_the_keys_of_a_workload_schema_are_known_to_templates() -> None:
    """Defaults, listed and required keys."""
    body = """\
    workload_schema: {properties: {m: {}}, required: [n]}
    workflow:
    - {step: start, next: end}
    - {step: end, result: "{{ m }}{{ n }}"}
    """
    assert findings_of(body) == []
