"""The routers of the API, one a noun. A new one is a module of this package and a row of ROUTERS."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from noetl_broker.console.api import (
    approvals,
    bulk,
    changes,
    dead_letters,
    execution_actions,
    execution_reads,
    executions,
    health,
    logs,
    me,
    playbooks,
    schedules,
    signals,
    slots,
    step_types,
    throttles,
    workers,
)

# Of two routes that fit a request, the first one answers.
ROUTERS: Final[tuple[APIRouter, ...]] = (
    bulk.router,
    executions.router,
    execution_reads.router,
    execution_actions.router,
    logs.router,
    playbooks.router,
    approvals.router,
    signals.router,
    schedules.router,
    step_types.router,
    throttles.router,
    slots.router,
    workers.router,
    dead_letters.router,
    changes.router,
    health.router,
    me.router,
)
