"""Says which role a refused login needs."""

from __future__ import annotations

import re

from noetl_broker.store.connect.schema_name import rendered

OWNER = "owner"  # of the schema: it has no role of ours
BROKER, OPERATOR, WORKER = "noetl_broker", "noetl_operator", "noetl_worker"
PRODUCER, READER, APPROVER, AUTHOR = "noetl_producer", "noetl_reader", "noetl_approver", "noetl_author"
_DENIED = re.compile(r"permission denied for (\w+)")
_TABLES = frozenset({"table", "view", "sequence"})


def with_remedy(message: str, role: str, schema: str) -> str:
    """Give a message of a refusal with the role that a command of this role needs; other messages are unchanged.

    Whatever a command reads in tables, the role of operators may read.
    """
    found = _DENIED.search(message)
    if found is None:
        return message
    if role == OWNER:
        return f"{message}; only the owner of the schema may do this"
    needed = rendered(OPERATOR if found[1] in _TABLES and role not in {APPROVER, AUTHOR, BROKER} else role, schema)
    return f"{message}; the login needs the role {needed}: grant {needed} to it (noetl-broker migrate --roles makes it)"
