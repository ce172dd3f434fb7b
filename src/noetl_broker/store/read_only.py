"""Why a server takes no writes, and what to do about it.

A setting that makes sessions read only is somebody's wish, as a provider's whose disk is full. So we do not override
it: whoever wants to write waits, and says who has set it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from noetl_broker.errors import DatabaseFault

SQLSTATE = "25006"  # what the server says to who writes in a transaction that may not
NAME = "default_transaction_read_only"


class Why(NamedTuple):
    """What is so, and what mends it."""

    what: str
    remedy: str


def why_read_only(row: Mapping[str, Any]) -> Why | None:
    """Give the reason, by a row of `examine_read_only`; None where sessions may write."""
    if row["is_replica"]:
        return Why(
            "the server is a replica",
            "name the primary in the DSN, or several hosts and target_session_attrs=read-write",
        )
    if not row["is_read_only"]:
        return None
    role, database = row["role"], row["database"]
    reasons = {
        "user": Why(f"the role {role} is set to read only", f"call alter role {role} reset {NAME}"),
        "database": Why(f"the database {database} is set to read only", f"call alter database {database} reset {NAME}"),
        "database user": Why(
            f"the role {role} is set to read only in the database {database}",
            f"call alter role {role} in database {database} reset {NAME}",
        ),
        "client": Why(f"the DSN or PGOPTIONS sets {NAME}", "take that out"),
    }
    of_server = Why(
        "the server is set to read only, perhaps by a provider whose disk is full",
        f"call alter system reset {NAME}, then select pg_reload_conf()",
    )
    return reasons.get(row["source"], of_server)


def read_only_fault(why: Why | None) -> DatabaseFault:
    """What to tell of it; `why` None: it was mended, or nobody could look."""
    reason = f": {why.what}: {why.remedy}" if why is not None else "; try again"
    fault = DatabaseFault(f"the server takes no writes{reason}")
    fault.sqlstate = SQLSTATE
    return fault
