"""What is refused at the top of a document: its keys, its metadata, its names."""

from __future__ import annotations

from tests.playbook.documents import told, told_whole


def test_required_keys_are_asked_for_all_at_once() -> None:
    """Each missing key is an error of its own."""
    source = """\
name: x
"""
    assert told_whole(source) == [
        "1:1 error missing-key : the playbook has no `apiVersion` (write apiVersion: noetl.io/v1)",
        "1:1 error missing-key : the playbook has no `kind` (write kind: Playbook)",
        "1:1 error missing-key : the playbook has no `workflow` (write workflow: [{step: start, next: …}])",
    ]


def test_wrong_api_version_kind_and_name_are_refused() -> None:
    """A value that must be another says which."""
    source = """\
apiVersion: noetl.io/v2
kind: Workflow
metadata: {name: 3}
workflow: [{step: start}]
"""
    assert told_whole(source) == [
        (
            "1:13 error wrong-value apiVersion: `apiVersion` is noetl.io/v2, not noetl.io/v1 (write "
            "apiVersion: noetl.io/v1)"
        ),
        "2:7 error wrong-value kind: `kind` is Workflow, not Playbook (write kind: Playbook)",
        "3:18 error wrong-type metadata.name: `name` is a number (write name: a name)",
    ]


def test_a_playbook_needs_a_name_or_a_path() -> None:
    """Without either there is nothing to call it."""
    source = """\
apiVersion: noetl.io/v1
kind: Playbook
workflow: [{step: start}]
"""
    assert told_whole(source) == [
        (
            "1:1 error missing-key metadata: the playbook has neither `metadata.name` nor `metadata.path` "
            "(write metadata: {name: …, path: folder/name})"
        ),
    ]


def test_names_and_paths_that_no_index_could_hold_are_refused() -> None:
    """Each where it stands; 255 characters are allowed."""
    long, longest = "n" * 256, "n" * 255
    source = f"""\
apiVersion: noetl.io/v1
kind: Playbook
metadata: {{name: {long}, path: {long}}}
workbook: [{{name: {long}, type: python, code: x}}]
workflow:
- {{step: start, next: [{long}, {longest}]}}
- {{step: {long}, type: workbook, task: {long}}}
- {{step: {longest}, type: python, code: x}}
"""
    remedy = "(shorten it, and say the rest in `desc`)"
    assert told_whole(source) == [
        f"3:18 error long-name metadata.name: the `name` has 256 characters; it may have 255 {remedy}",
        f"3:282 error long-name metadata.path: the `path` has 256 characters; it may have 255 {remedy}",
        (
            "4:19 error long-name workbook[0].name: the name of an action of the workbook has 256 characters; "
            f"it may have 255 {remedy}"
        ),
        f"7:10 error long-name workflow[1].step: the name of a step has 256 characters; it may have 255 {remedy}",
    ]


def test_metadata_has_bounds_and_known_keys() -> None:
    """Limits are numbers in range; a misspelt key is a warning."""
    source = """\
apiVersion: noetl.io/v1
kind: Playbook
metadata: {name: x, max_visit: 3, max_visits: 0, deadline: soon, priority: 1.5}
workflow: [{step: start}]
"""
    assert told_whole(source) == [
        (
            "3:21 warning unknown-key metadata.max_visit: the key `max_visit` means nothing in `metadata` "
            "(did you mean `max_visits`?)"
        ),
        (
            "3:47 error bad-value metadata.max_visits: `max_visits` is 0, not an integer from 1 to "
            "2147483647 (write an integer from 1 to 2147483647)"
        ),
        (
            "3:60 error bad-value metadata.deadline: `deadline` is 'soon', not a number from 0.001 to "
            "31536000 (write it without quotes or template)"
        ),
        (
            "3:76 error bad-value metadata.priority: `priority` is 1.5, not an integer from -32768 to 32767 "
            "(write an integer from -32768 to 32767)"
        ),
    ]


def test_parts_of_a_wrong_type_are_refused() -> None:
    """Mappings and lists stand where they should."""
    source = """\
apiVersion: noetl.io/v1
kind: Playbook
name: x
metadata: []
workload: 3
workbook: {}
workflow: [{step: start}]
"""
    assert told_whole(source) == [
        "4:11 error wrong-type metadata: `metadata` is a list, not a mapping (write a mapping)",
        "5:11 error wrong-type workload: `workload` is a number, not a mapping (write a mapping)",
        "6:11 error wrong-type workbook: `workbook` is a mapping, not a list (write a list)",
    ]


def test_a_document_is_a_mapping() -> None:
    """A list at the top is no playbook."""
    source = """\
- a
"""
    assert told_whole(source) == [
        "1:1 error wrong-type : the document is a list (a playbook is a mapping of keys)",
    ]


def test_workflow_and_steps_are_one_key() -> None:
    """Only one of two aliases may be given."""
    source = """
    steps: [{step: start}]
    workflow: [{step: start}]
    """
    assert told(source) == [
        "2:1 error duplicate-key steps: `steps` says again what `workflow` says (keep one)",
    ]


def test_a_workflow_is_a_list() -> None:
    """A mapping is no workflow."""
    source = """
    workflow: {step: start}
    """
    assert told(source) == [
        "2:11 error wrong-type workflow: `workflow` is a mapping, not a list (write a list)",
    ]


def test_an_empty_workflow_key_is_refused() -> None:
    """A key without a value is no workflow."""
    source = """
    workflow:
    """
    assert told(source) == [
        "2:10 error wrong-type workflow: `workflow` is null (write a list of steps)",
    ]


def test_step_names_are_unique() -> None:
    """The second step of a name says where the first stands."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, next: end}
      - {step: a}
      - {step: end}
    """
    assert told(source) == [
        (
            "5:12 error duplicate-step workflow[2].step: there are two steps `a`, the first on line 7 "
            "(rename one of them)"
        ),
    ]


def test_action_names_are_unique() -> None:
    """The workbook has one action of a name."""
    source = """
    workbook:
      - {name: fetch, type: http, url: x}
      - {name: fetch, type: http, url: y}
    workflow:
      - {step: start}
    """
    assert told(source) == [
        "4:5 error duplicate-action workbook[1]: the workbook has two actions `fetch` (rename one)",
    ]


def test_a_workflow_has_a_start() -> None:
    """Without `start` nothing can begin."""
    source = """
    workflow:
      - {step: a, next: end}
      - {step: end}
    """
    assert told(source) == [
        "2:1 error no-start workflow: the workflow has no step `start` (add {step: start, next: …})",
    ]


def test_step_names_have_no_signs_of_node_ids() -> None:
    """`#`, `:` and control characters would break node ids."""
    source = """
    workflow:
      - {step: start, next: "a#b"}
      - {step: "a#b", next: "c:d"}
      - {step: "c:d", next: "e\tf"}
      - {step: "e\tf"}
    """
    assert told(source) == [
        ("4:12 error bad-name workflow[1].step: the step name 'a#b' has the character '#' (use letters, digits and _)"),
        ("5:12 error bad-name workflow[2].step: the step name 'c:d' has the character ':' (use letters, digits and _)"),
        (
            "6:12 error bad-name workflow[3].step: the step name 'e\\tf' has the character '\\t' (use letters, "
            "digits and _)"
        ),
    ]


def test_a_step_is_a_mapping_with_a_name() -> None:
    """Whatever else stands in the workflow is refused, each with its reason."""
    source = """
    workflow:
      - {step: start}
      - a
      - {desc: nameless}
      - {step: 3}
      - {step: ""}
    """
    assert told(source) == [
        "4:5 error wrong-type workflow[1]: a step is a string, not a mapping (write step: name)",
        "5:5 error missing-key workflow[2]: a step has no `step` (write step: name)",
        "6:12 error wrong-type workflow[3].step: the name of a step is a number (write step: name)",
        "7:12 error wrong-type workflow[4].step: the name of a step is empty (write step: name)",
    ]


def test_every_error_is_found_in_one_go() -> None:
    """The author sees all that is wrong, in document order."""
    source = """
    workflow:
      - {step: start, next: [x, y]}
      - {step: a, type: nope, next: {when: "", step: end}}
      - {step: end, next: a}
    """
    assert told(source) == [
        "3:26 error unknown-step workflow[0].next[0]: there is no step `x` (known are: start, a, end)",
        "3:29 error unknown-step workflow[0].next[1]: there is no step `y` (known are: start, a, end)",
        (
            "4:21 error unknown-type workflow[1].type: the type `nope` is not known (did you mean `noop`? a "
            "type that your own workers run goes into the setting extra_step_types)"
        ),
        (
            "4:40 error bad-when workflow[1].next.when: bad `when`: a condition is empty: write an "
            'expression (write when: "{{ expression }}")'
        ),
        "5:23 error end-with-next workflow[2].next: `end` has a `next` (remove it, or rename the step)",
    ]


def test_unknown_keys_are_warned_of() -> None:
    """At the top, in `next` and on a step, each with its nearest word or its remedy."""
    source = """
    workflows: 1
    workflow:
      - {step: start, next: {step: a, whne: 1}}
      - {step: a, type: http, url: x, metod: GET, pass: "{{ x }}", vars: {y: 1}}
    """
    assert told(source) == [
        (
            "2:1 warning unknown-key workflows: the key `workflows` means nothing in a playbook (did you "
            "mean `workflow`?)"
        ),
        (
            "4:35 warning unknown-key workflow[0].next.whne: the key `whne` means nothing in `next` (did you "
            "mean `when`?)"
        ),
        (
            "5:35 warning unknown-key workflow[1].metod: the key `metod` means nothing on the http step `a` "
            "(did you mean `method`?)"
        ),
        (
            "5:47 warning unknown-key workflow[1].pass: the key `pass` means nothing on the http step `a` "
            "(the step always runs: put the condition into the `next` of the step before it)"
        ),
        (
            "5:64 warning unknown-key workflow[1].vars: the key `vars` means nothing on the http step `a` "
            "(the worker gets it as it is, and the broker does nothing with it)"
        ),
    ]


def test_a_key_for_the_worker_on_a_step_without_one_is_told_of_as_such() -> None:
    """Nobody gets it."""
    source = """
    workflow:
      - {step: start, next: a}
      - {step: a, type: playbook, path: p, vars: {y: 1}}
    """
    assert told(source) == [
        (
            "4:40 warning unknown-key workflow[1].vars: the key `vars` means nothing on the playbook step `a` "
            "(no worker gets it, and the broker does nothing with it)"
        ),
    ]


def test_a_name_that_is_no_identifier_is_warned_of() -> None:
    """Templates reach such a step only through `results`."""
    source = """
    workflow:
      - {step: start, next: "a b"}
      - {step: "a b"}
    """
    assert told(source) == [
        (
            "4:12 warning bad-name workflow[1].step: the step name `a b` is not an identifier, so templates "
            "reach it only by results['a b'] (use letters, digits and _)"
        ),
    ]
