"""The routes of the API: method, path and the action of the service. Of two routes that fit, the first one answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fastapi import APIRouter

from noetl_broker.console.api import changes
from noetl_broker.console.api.route import Row, add_route, register_names
from noetl_broker.service import (
    bulk,
    execution_actions,
    executions,
    health,
    playbooks,
    schedules,
    stats,
    throttles,
    waits,
)

register_names("schedule", "next", "pause", "resume", "backfill")
register_names("throttle", "keys")

ONE: Final = "/executions/{execution_id}"
SCHEDULE: Final = "/schedules/{name:schedule}"
SCHEDULE_AND: Final = "/schedules/{name:path}"
THROTTLE: Final = "/throttles/{name:throttle}"
CREATED, ACCEPTED = HTTPStatus.CREATED, HTTPStatus.ACCEPTED

ROWS: Final[tuple[Row, ...]] = (
    Row("POST", "/executions/bulk/erase", bulk.erase_many),
    Row("POST", "/executions/bulk/{action}", bulk.act_on_many),
    Row("GET", "/executions", executions.list_executions),
    Row("GET", ONE, executions.show_execution),
    Row("POST", "/executions", executions.start_execution, CREATED),
    Row("GET", f"{ONE}/outcome", executions.show_outcome),
    Row("GET", f"{ONE}/events", executions.list_events),
    Row("GET", f"{ONE}/jobs", executions.list_jobs),
    Row("GET", f"{ONE}/items", executions.list_items),
    Row("GET", f"{ONE}/undo", executions.list_undos),
    Row("GET", f"{ONE}/explain", executions.explain, leaves_out_defaults=True),
    Row("GET", f"{ONE}/graph", executions.draw_execution),
    Row("GET", f"{ONE}/timeline", executions.draw_timeline),
    Row("GET", f"{ONE}/snapshot", executions.show_snapshot),
    Row("GET", f"{ONE}/replay", executions.replay_execution),
    Row("GET", f"{ONE}/verify", executions.verify_execution),
    Row("POST", f"{ONE}/cancel", execution_actions.cancel_execution, ACCEPTED),
    Row("POST", f"{ONE}/pause", execution_actions.pause_execution, ACCEPTED),
    Row("POST", f"{ONE}/resume", execution_actions.resume_execution, ACCEPTED),
    Row("POST", f"{ONE}/signals", execution_actions.signal_execution, CREATED),
    Row("POST", f"{ONE}/retry", execution_actions.retry_execution, CREATED),
    Row("POST", f"{ONE}/fork", execution_actions.fork_execution, CREATED),
    Row("POST", f"{ONE}/undo", execution_actions.undo_execution, ACCEPTED),
    Row("POST", f"{ONE}/abandon", execution_actions.abandon_execution, ACCEPTED),
    Row("POST", f"{ONE}/erase", execution_actions.erase_execution),
    Row("POST", f"{ONE}/reevaluate", execution_actions.reevaluate_execution),
    Row("GET", f"{ONE}/logs", executions.list_log),
    Row("GET", "/playbooks", playbooks.list_playbooks),
    Row("GET", "/playbooks/versions", playbooks.list_versions),
    Row("GET", "/playbooks/source", playbooks.show_source),
    Row("GET", "/playbooks/graph", playbooks.draw_playbook),
    Row("GET", "/playbooks/difference", playbooks.compare_versions),
    Row("PUT", "/playbooks", playbooks.register_text),
    Row("POST", "/playbooks/validate", playbooks.validate),
    Row("POST", "/playbooks/back-test", playbooks.back_test),
    Row("POST", "/playbooks/pause", playbooks.pause_path, in_query=("path",)),
    Row("POST", "/playbooks/resume", playbooks.resume_path, in_query=("path",)),
    Row("GET", "/approvals", waits.list_approvals),
    Row("POST", "/approvals/decisions", waits.decide),
    Row("GET", "/signals", waits.list_signals),
    Row("POST", "/signals", waits.send_signal, CREATED),
    Row("GET", "/schedules", schedules.list_schedules),
    Row("GET", f"{SCHEDULE_AND}/next", schedules.list_moments),
    Row("GET", SCHEDULE, schedules.show_schedule),
    Row("PUT", SCHEDULE, schedules.put_schedule),
    Row("POST", f"{SCHEDULE_AND}/pause", schedules.pause_schedule, takes_body=False),
    Row("POST", f"{SCHEDULE_AND}/resume", schedules.resume_schedule, takes_body=False),
    Row("POST", f"{SCHEDULE_AND}/backfill", schedules.backfill_schedule),
    Row("DELETE", SCHEDULE, schedules.delete_schedule),
    Row("GET", "/step-types", playbooks.list_step_types),
    Row("PUT", "/step-types/{name}", playbooks.add_step_type, takes_body=False),
    Row("DELETE", "/step-types/{name}", playbooks.remove_step_type),
    Row("GET", "/throttles", throttles.list_throttles),
    Row("GET", "/throttles/{name:path}/keys", throttles.list_keys),
    Row("PUT", THROTTLE, throttles.put_throttle),
    Row("DELETE", THROTTLE, throttles.delete_throttle),
    Row("GET", "/slots", throttles.list_slots),
    Row("GET", "/slots/line", throttles.list_line),
    Row("GET", "/stats", stats.show_stats),
    Row("GET", "/workers", health.list_workers),
    Row("GET", "/workers/leases", health.list_leases),
    Row("GET", "/dead-letters", health.list_dead_letters),
    Row("GET", "/health", health.ask_health, is_urgent=True),
    Row("GET", "/health/undone", health.list_left_undone),
    Row("GET", "/health/findings", health.list_findings),
    Row("GET", "/me", health.show_me, is_urgent=True),
)


def _router() -> APIRouter:
    router = APIRouter()
    for row in ROWS:
        add_route(router, row)
    return router


ROUTERS: Final = (_router(), changes.router)
