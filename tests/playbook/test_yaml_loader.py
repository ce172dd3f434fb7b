"""The YAML loader: values, positions, and documents that it refuses."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from noetl_broker.playbook import PlaybookRules
from noetl_broker.playbook import yaml_loader as module
from noetl_broker.playbook.diagnostics import Report
from noetl_broker.playbook.work_budget import Work
from noetl_broker.playbook.yaml_loader import Document, load_into
from noetl_broker.template import number_of
from tests.playbook.documents import document_findings

RULES = PlaybookRules()
BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def load(text: str | bytes) -> tuple[Document, Report]:
    """Load a document."""
    document = Document()
    report = Report(file="x", positions=document)
    load_into(document, text, report, RULES, Work(RULES.most_work, RULES.most_seconds))
    return document, report


def value_of(text: str) -> object:
    """Load a document that has no findings."""
    document, report = load(text)
    assert not report.findings
    return document.value


def test_scalars_that_are_no_json_values_are_text() -> None:
    """Other scalars than true, false, null and numbers."""
    text = "[no, on, yes, 12:30, 2024-01-01, 007, 1_000, .5, 1e3, -3, 0x1f, true, ~, null, '1', \"true\"]"
    assert value_of(text) == [
        *("no", "on", "yes", "12:30", "2024-01-01", "007", "1_000"),
        *(0.5, 1000.0, -3, 31, True, None, None, "1", "true"),
    ]


def test_the_key_on_is_text() -> None:
    """YAML 1.1 would make it true."""
    assert value_of("on: 1") == {"on": 1}


def test_an_alias_gives_the_anchored_value() -> None:
    """Anchors work for whole values."""
    assert value_of("a: &x {b: 1}\nc: *x") == {"a": {"b": 1}, "c": {"b": 1}}


def test_tags_of_json_types_are_read_and_others_refused() -> None:
    """`!!str 1` is text. A Python object is not created."""
    assert value_of("[!!str 1, !!float 1, ! 1]") == ["1", 1.0, "1"]
    assert document_findings("a: !!python/object:os.system x")[-1] == (
        "1:4 error bad-value a: the tag tag:yaml.org,2002:python/object:os.system is not supported "
        "(write text in quotes, and only what JSON can hold)"
    )


def test_every_place_has_its_line_and_column() -> None:
    """Keys and values have positions. An absent key has that of its nearest parent."""
    document, _ = load("a:\n  - b: 1\n    c: [x, yy]\n")
    assert document.where(("a", 0, "c", 1)) == (3, 12)
    assert document.where(("a", 0, "c"), key=True) == (3, 5)
    assert document.where(("a", 0, "d")) == (2, 5)


def test_the_pure_parser_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and positions are equal without libyaml."""
    text = "a: &x\n  - b: 1\n    'c': [x, \"y\\n\"]\nd: *x\ne: |\n  text\n"
    first, _ = load(text)
    monkeypatch.setattr(module, "LOADER", yaml.SafeLoader)
    second, _ = load(text)
    assert first.value == second.value
    assert [*first.marks.values()] == [*second.marks.values()]


@pytest.mark.parametrize(
    "source, expected",
    [
        (b"", "1:1 error empty : the document is empty (start with `apiVersion: noetl.io/v1`)"),
        (b"a: 1\nb: \xff", "2:4 error not-utf8 : the document is not UTF-8: byte 0xff (save the file as UTF-8)"),
        (
            b"a: \x01",
            (
                "1:4 error not-yaml : not YAML: unacceptable character #x0001: control characters are not allowed "
                "(remove the control character)"
            ),
        ),
        (
            b"a: {{ x }}",
            '1:5 error bad-key a: a mapping is used as a key (a template needs quotes: "{{ … }}")',
        ),
        (
            BOMB.encode(),
            "5:29 error alias-bomb e[7]: aliases expand the document beyond 100,000 nodes (write the values out)",
        ),
    ],
)
def test_an_unreadable_document_has_one_finding(source: bytes, expected: str) -> None:
    """With its place and a remedy."""
    assert document_findings(source) == [expected]


def test_deep_nesting_is_refused() -> None:
    """Nesting over 100 levels, and a deep value under an alias."""
    assert document_findings(b"[" * 10_000)[0].split(": ", 1)[1] == "nesting is deeper than 100 (flatten the structure)"
    deep = b"a: &a " + b"[" * 90 + b"]" * 90 + b"\nb: " + b"[" * 20 + b"*a" + b"]" * 20
    assert document_findings(deep)[0].split(": ", 1)[1] == "nesting is deeper than 100 (flatten the structure)"


def test_a_document_over_the_size_limit_is_not_read() -> None:
    """The limit is a setting, in bytes."""
    assert document_findings("a: 1234567890", PlaybookRules(max_document_bytes=10)) == [
        (
            "1:1 error too-large : the document has 13 bytes, and 10 are allowed "
            "(split it into playbooks that call each other)"
        )
    ]


def test_a_duplicate_key_is_reported_with_both_places() -> None:
    """The first key counts, and the loader continues."""
    assert document_findings("a: 1\nb: {c: 1, d: 2, c: 3}\na: 2")[-2:] == [
        (
            "2:17 error duplicate-key b.c: the key `c` is twice in one mapping, first on line 2, column 5 "
            "(keep one of them)"
        ),
        (
            "3:1 error duplicate-key a: the key `a` is twice in one mapping, first on line 1, column 1 "
            "(keep one of them)"
        ),
    ]


def test_values_that_json_cannot_hold_are_refused() -> None:
    """Infinite and huge numbers, NUL, keys that are no text, and merge keys."""
    text = f'a: .inf\nb: 1e999\nc: {"9" * 90}\nd: "\\0"\n1: x\n<<: {{f: 1}}\n'
    remedy = "(write text in quotes, and only what JSON can hold)"
    assert [line for line in document_findings(text) if "bad-" in line or "merge" in line] == [
        f"1:4 error bad-value a: .inf is a number that JSON does not have {remedy}",
        f"2:4 error bad-value b: the number 1e999 is too large {remedy}",
        f"3:4 error bad-value c: the integer {'9' * 20}… has more than 256 bits {remedy}",
        f"4:4 error bad-value d: text with a NUL character cannot be stored {remedy}",
        '5:1 error bad-key 1: the key 1 is a number (keys are strings: write "1":)',
        "6:1 error merge-key ['<<']: merge keys (`<<`) are not supported (write the keys out)",
    ]


FINITE = st.floats(allow_nan=False, allow_infinity=False).map(number_of)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_a_json_document_is_read_unchanged(value: object) -> None:
    """JSON is YAML. Values that cannot be stored are refused."""
    document, report = load(json.dumps(value))
    if not report.findings:
        assert document.value == value


@given(st.binary(max_size=200) | st.text(alphabet="&*!|>-?:[]{}'\"%@`#,ab1 \n\t", max_size=60).map(str.encode))
def test_random_bytes_give_findings_and_no_exception(data: bytes) -> None:
    """Any file ends in findings."""
    document, report = load(data)
    assert document.value is not None or report.findings or data.strip() in (b"", b"~", b"null") or not document.fatal


@pytest.mark.parametrize("around, is_refused", [(48, False), (49, True)])
def test_an_alias_is_as_deep_as_its_value(around: int, *, is_refused: bool) -> None:
    """Together with what is around it, 100 levels are allowed."""
    _, report = load(f"a: &a {'[' * 51}{']' * 51}\nb: {'[' * around}*a{']' * around}")
    assert [finding.code for finding in report.findings] == ["too-deep"] * is_refused
