"""Whether spans are told, and to whom: the library is loaded only where the settings ask for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module

from noetl_broker.broker.spans import Emit
from noetl_broker.cli.frame import Call
from noetl_broker.errors import OperatorFault


@contextlib.contextmanager
def exporter(call: Call, service: str) -> Iterator[Emit | None]:
    """Give what takes spans (None: nobody wants any); what it took is sent at the end. Raises OperatorFault."""
    if call.settings.traces == "off":
        yield None
        return
    try:
        tracing = import_module("noetl_broker.tracing")
    except ImportError as error:
        raise OperatorFault(
            f'traces = "{call.settings.traces}" needs what is not installed ({error.name}): '
            "pip install 'noetl-broker[otel]'"
        ) from error
    opened = tracing.otlp(service)
    try:
        yield opened.emit
    finally:
        opened.close()
