"""The world outside the examples that wait for it: tables before the start, and what people and programs do then."""

from __future__ import annotations

from typing import Any, NamedTuple

from noetl_broker.broker.model.values import JSON
from tests.brokers import execute, value
from tests.postgres import Database

PREPARE = {
    "payment": """
        create schema if not exists shop;
        create table shop.payments (order_id bigint, amount numeric);
        create function shop.tell() returns trigger language plpgsql as $$
        begin
          perform noetl.send_signal('payment', new.order_id::text, jsonb_build_object('amount', new.amount));
          return null;
        end
        $$;
        create trigger tell after insert on shop.payments for each row execute function shop.tell();
        """,
    "record_sale": "create schema if not exists shop; create table shop.sale (order_id int, amount int)",
    "import_orders": "create schema if not exists shop; create table shop.sales (day date, amount int)",
}


class Act(NamedTuple):
    """A statement that is run as soon as the condition is true."""

    when: str
    do: str


REFUND = """
    select noetl.decide_approval(execution_id, node_id, true, 'ann')
    from noetl.pending_approvals"""
WAITS = "select exists (select from noetl.wait where status = 'open' and node_id like '%:{}')"
ACTS = {
    "order_approval": (
        Act(
            WAITS.format("approve"),
            """
            select noetl.decide_approval(execution_id, node_id, true, 'ann', '{"discount": 5}')
            from noetl.pending_approvals""",
        ),
    ),
    "order_by_hand": (Act(WAITS.format("ask"), REFUND),),
    "refund_by_hand": (Act(WAITS.format("ask"), REFUND),),
    "payment": (Act(WAITS.format("paid"), "insert into shop.payments values (41, 90), (42, 5), (42, 30)"),),
    "payment_or_three_days": (
        Act(WAITS.format("paid"), "select noetl.send_signal('payment', '42', '{\"amount\": 30}')"),
    ),
    "reminder": (
        Act(WAITS.format("answered"), "update noetl.timer set due_at = clock_timestamp()"),
        Act(WAITS.format("answered#2"), "select noetl.send_signal('answer', 'Ada', '{\"comes\": true}')"),
    ),
    "fan_out_deadline": (
        Act(
            "select count(*) = 2 from noetl.workflow where step_name in ('north', 'south') and status = 'COMPLETED'",
            "update noetl.timer set due_at = clock_timestamp() where step = 'deadline'",
        ),
    ),
}


def needs_act(name: str, payload: JSON) -> bool:
    """Whether an example waits for the world outside, and does not just lose its patience."""
    if name == "order_by_hand":
        return "address" in payload  # a person is asked only if the order fails
    return "patience" not in payload


SIMULATED: dict[str, dict[str, Any]] = {
    "order_approval": {"approvals": {"approve": {"approved": True, "by": "ann", "discount": 5}}},
    "refund_by_hand": {"approvals": {"ask": {"approved": True, "by": "ann"}}},
    "payment": {"signals": [
        {"name": "payment", "key": "42", "payload": {"amount": amount}, "after": amount} for amount in (5, 30)
    ]},
    "payment_or_three_days": {"signals": [{"name": "payment", "key": "42", "payload": {"amount": 30}, "after": 5}]},
    "reminder": {"signals": [{"name": "answer", "key": "Ada", "payload": {"comes": True}, "after": 4 * 86_400}]},
}  # fmt: skip


def simulated(name: str, payload: JSON) -> dict[str, Any]:
    """Return what a simulation of the example gets beside its answers."""
    if needs_act(name, payload):
        return SIMULATED.get(name, {})
    return {"approvals": {"approve": None}} if name == "order_approval" else {}


async def prepare(database: Database, name: str) -> None:
    """Make the tables that an example needs."""
    if name in PREPARE:
        await execute(database, PREPARE[name])


async def act(database: Database, name: str) -> None:
    """Do what an example waits for."""
    for step in ACTS.get(name, ()):
        while not await value(database, step.when):
            pass
        await execute(database, step.do)
