"""The batch size of a lane: what lowers it and what raises it again."""

from __future__ import annotations

from noetl_broker.daemon.batch_size import RAISE_AFTER, BatchSize


def test_the_batch_size_begins_with_the_setting() -> None:
    """A lane without faults claims as much as the setting allows."""
    size = BatchSize(200)
    assert (size.mails, size.is_slow) == (200, False)


def test_the_batch_size_falls_to_what_a_batch_decided() -> None:
    """A batch that ran out of time decided 7 of 200 mails: the next one claims 7."""
    size = BatchSize(200)
    size.on_decided(7, 200)
    assert (size.mails, size.is_slow) == (7, True)


def test_the_batch_size_doubles_while_batches_decide_all_their_mail() -> None:
    """From 7 up to the setting, and not above."""
    size = BatchSize(50)
    size.on_decided(7, 50)
    sizes = []
    for _ in range(4):
        size.on_decided(size.mails, size.mails)
        sizes.append(size.mails)
    assert (sizes, size.is_slow) == ([14, 28, 50, 50], False)


def test_the_batch_size_is_at_least_one() -> None:
    """A lane always claims at least one mail."""
    size = BatchSize(200)
    size.on_decided(0, 200)
    assert size.mails == 1


def test_a_fault_halves_the_size_of_its_batch() -> None:
    """A batch of 40 mails was too large for the server: the next one claims 20."""
    size = BatchSize(200)
    size.halve(40)
    assert (size.mails, size.is_slow) == (20, False)


def test_a_fault_of_the_claim_halves_the_batch_size() -> None:
    """The claim itself failed, down to a single mail."""
    size = BatchSize(5)
    sizes = []
    for _ in range(4):
        size.halve(0)
        sizes.append(size.mails)
    assert sizes == [2, 1, 1, 1]


def test_a_batch_larger_than_the_claim_does_not_raise_the_size() -> None:
    """All mail of an execution comes together, so a batch may be larger than the claim."""
    size = BatchSize(8)
    size.halve(0)
    size.halve(100)
    assert size.mails == 2


def test_the_limit_of_the_server_doubles_after_enough_good_batches() -> None:
    """Each doubling takes so many batches in a row."""
    size = BatchSize(200)
    size.halve(0)
    raised = [size.on_success() for _ in range(RAISE_AFTER)]
    assert (raised, size.mails) == ([*[False] * (RAISE_AFTER - 1), True], 200)


def test_a_fault_resets_the_count_of_good_batches() -> None:
    """One more good batch is not enough after a fault."""
    size = BatchSize(200)
    size.halve(0)
    for _ in range(RAISE_AFTER - 1):
        size.on_success()
    size.on_fault()
    assert (size.on_success(), size.mails) == (False, 100)


def test_the_smaller_limit_counts() -> None:
    """Neither limit raises the other."""
    size = BatchSize(200)
    size.halve(0)
    size.on_decided(7, 100)
    before = size.mails
    size.on_decided(7, 7)
    for _ in range(5):
        size.on_decided(size.mails, size.mails)
    assert (before, size.mails) == (7, 100)
