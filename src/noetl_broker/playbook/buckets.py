"""What a playbook must say in an installation with buckets: limits say what they count, and families have one home.

A bucket counts only its own executions and jobs. A child lives with its parent, and an alarm with what failed. Without
buckets nothing of this is asked, and the keys have no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from noetl_broker.playbook.diagnostics import Finding
from noetl_broker.playbook.keywords import THROTTLE
from noetl_broker.playbook.model import BucketNeeds, CallAt, Playbook
from noetl_broker.playbook.reader import Reading, strings

CODE: Final = "bad-bucket"
Homes = Mapping[tuple[str, int | None], str | None]  # metadata.bucket by path and version; version None: the latest


def read_needs(reading: Reading) -> BucketNeeds:
    """Give what buckets ask of a document that is read."""
    place = reading.report.place
    return BucketNeeds(
        home=place(("metadata", "bucket")),
        limits=tuple((key, place(location)) for location, key in reading.limits.items()),
        calls=tuple(
            CallAt(call.path.strip(), call.version, place(call.location))
            for call in reading.calls
            if isinstance(call.version, int | None) and not any(strings(call.path, call.location))
        ),
    )


def bucket_faults(playbook: Playbook, homes: Homes) -> list[Finding]:
    """Give what a bucket refuses; `homes` has the playbooks that it starts by a literal path, if they are known."""
    if playbook.needs is None:
        return []
    found = [place.error(CODE, *_fault_of_limit(playbook, key)) for key, place in playbook.needs.limits
             if key == THROTTLE or playbook.bucket is None]  # fmt: skip
    for call in playbook.needs.calls:
        home = homes.get((call.path, call.version))
        if home is not None and home != playbook.bucket:
            message = f"`{call.path}` has {home_text(home)}, and `{playbook.path}`, which starts it,"
            hint = f"give both the same metadata.bucket, or remove it from `{call.path}`"
            message = f"{message} has {home_text(playbook.bucket)}: they would live in different buckets"
            found.append(call.place.error(CODE, message, hint))
    return sorted(found, key=lambda one: (one.line, one.column))


def home_fault(playbook: Playbook, version: int, home: str | None) -> Finding | None:
    """Give the error of a version whose home is another than that of the latest version; None if it is the same."""
    if playbook.needs is None or playbook.bucket == home:
        return None
    message = f"`{playbook.path}` has {home_text(playbook.bucket)}, and its version {version} has {home_text(home)}"
    keys = "executions with earlier idempotency keys would start again"
    return playbook.needs.home.error(CODE, f"{message}: {keys}", "keep it, or register with --new-home")


def home_text(bucket: str | None) -> str:
    """Give the home of a playbook as an error names it."""
    return "no metadata.bucket" if bucket is None else f"metadata.bucket: {bucket}"


def _fault_of_limit(playbook: Playbook, key: str) -> tuple[str, str]:
    message = f"`{key}` of `{playbook.path}` does not say what it counts: each bucket counts only its own"
    if key == THROTTLE:
        return f"{message} jobs", "write per_bucket: true in it: its numbers are those of each bucket"
    hint = "write metadata.bucket: NAME, and it is exact, or per_bucket: true in it, and each bucket counts for itself"
    return f"{message} executions", hint
