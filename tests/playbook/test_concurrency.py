"""`metadata.concurrency` as it is read."""

from __future__ import annotations

import pytest

from noetl_broker.playbook.diagnostics import PlaybookError
from tests.stories import playbook

BODY = "workflow: [{step: start}]"


def test_its_defaults() -> None:
    """One execution of the playbook, the others are queued."""
    found = playbook(BODY, metadata="concurrency: {}").concurrency
    assert found is not None
    assert (found.key, found.label, found.limit, found.on_limit) == (None, "", 1, "queue")


def test_a_key_that_reads_one_value_has_its_name() -> None:
    """`status` says `customer 7`."""
    found = playbook(BODY, metadata='concurrency: {key: "{{ workload.customer }}", limit: 2}').concurrency
    assert found is not None
    assert (found.label, found.limit) == ("customer", 2)


@pytest.mark.parametrize(
    "written, complaint",
    [
        ("7", "`concurrency` is a number, not a mapping"),
        ("{on_limt: skip}", "unknown key `on_limt` in `concurrency`"),
        ("{on_limit: wait}", "`on_limit` is 'wait'"),
        ("{limit: 0}", "0"),
        ("{per_bucket: 'true'}", "`per_bucket` is 'true', not true or false"),
        ("{key: null}", "`key` is null"),
        ("{key: ''}", "`key` is '', not a text of 1 to 1024 bytes"),
    ],
)
def test_a_wrong_one_is_refused(written: str, complaint: str) -> None:
    """The error names the value."""
    with pytest.raises(PlaybookError, match=complaint):
        playbook(BODY, metadata=f"concurrency: {written}")
