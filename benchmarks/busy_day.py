"""A database after a busy day: executions of all kinds, a wide graph, many items, long values, what waits or failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import yaml

from noetl_broker.resources import playbooks_folder
from tests.browser.site import Site
from tests.stories import document

FORTY = Path(__file__).parents[1] / "tests" / "diagram" / "forty_steps.yaml"
# What the steps of the forty give: a large order of a good customer, that nobody has paid yet.
GIVEN: dict[str, Any] = {
    "load_order": {"amount": 1800, "lines": [*range(1, 13)]},
    "check_customer": {"risk": 0.2, "vip": False},
    "track": {"delivered": True},
    "tax_total": {"differs": False},
}
ITEMS = 5_000
TEXTS = {
    "shop/import": """
workload: {items: 5000}
workflow:
  - {step: start, next: list_rows}
  - step: list_rows
    type: python
    args: {items: "{{ workload.items }}"}
    code: |
      def main(items):
          print(f"the file has {items} rows")
          return list(range(items))
    next: convert
  - step: convert
    type: iterator
    distribute: true
    collection: "{{ list_rows }}"
    element: row
    mode: async
    concurrency: 200
    on_error: continue
    task:
      type: python
      args: {row: "{{ row }}"}
      code: |
          def main(row):
              if row % 135 == 134:
                  raise ValueError(f"row {row} has no amount")
              return {"row": row, "amount": row * 3 % 97}
    next: report
  - step: report
    type: python
    args: {done: "{{ convert | length }}"}
    code: "def main(done): return {'rows': done}"
    next: end
  - {step: end, result: "{{ report }}"}
""",
    "shop/export": """
workload: {month: "2026-10", size: 2600}
workflow:
  - {step: start, next: collect}
  - step: collect
    type: python
    args: {size: "{{ workload.size }}", month: "{{ workload.month }}"}
    code: |
      def main(size, month):
          for n in range(40):
              print(f"{month}: part {n} of 40 is written")
          orders = [{"order": n, "customer": f"ACME-{n % 77}", "total": n * 7 % 1000} for n in range(size)]
          return {"month": month, "orders": orders}
    next: end
  - {step: end, result: "{{ collect }}"}
""",
    "shop/charge": """
workload: {order_id: 4711, amount: 120, card: {number: "4000 0000 0000 0002"}}
workflow:
  - {step: start, next: load}
  - step: load
    type: python
    args: {order: "{{ workload.order_id }}"}
    code: "def main(order): return {'order': order, 'currency': 'EUR'}"
    next: charge
  - step: charge
    desc: Charge the card of the customer
    type: python
    retry: {max_attempts: 2, initial_delay: 0.05, jitter: false}
    args: {card: "{{ workload.card }}", amount: "{{ workload.amount }}"}
    code: |
      class Declined(Exception):
          pass

      def ask_bank(card, amount):
          print(f"ask the bank for {amount} EUR")
          if card["number"].endswith("0002"):
              raise Declined("the bank does not honor the card")
          return {"charged": amount}

      def main(card, amount):
          return ask_bank(card, amount)
    next:
      - {when: "{{ charge.charged > 1000 }}", step: tell_finance}
      - {else: [{step: receipt}]}
  - {step: tell_finance, type: python, code: "def main(): return 1", next: receipt}
  - step: receipt
    type: python
    args: {order: "{{ load.order }}"}
    code: "def main(order): return {'receipt': order}"
    next: end
  - {step: end, result: "{{ receipt }}"}
""",
}


# The step that fails is caught; the mail has a limit, and no worker does it.
CAUGHT = """
workload: {customer: 3}
workflow:
  - {step: start, next: pay}
  - step: pay
    type: python
    code: "def main(): raise PermissionError('declined')"
    catch: [{when: "{{ error.type == 'PermissionError' }}", step: by_invoice}]
    next: end
  - {step: by_invoice, type: python, code: "def main(): return 'sent'", next: mail}
  - {step: mail, type: crm, throttle: {name: mail, key: "{{ workload.customer }}", concurrency: 2}, next: end}
  - {step: end}
"""
ONE_EACH = 'concurrency: {key: "{{ workload.customer }}", limit: 1}'
REFUND = """
workload: {customer: 7}
workflow:
  - {step: start, next: reserve}
  - step: reserve
    type: python
    code: "def main(): return {'shelf': 7}"
    compensate: {type: python, code: "def main(): return 'released'"}
    next: charge
  - step: charge
    type: python
    code: "def main(): return {'charge': 17}"
    compensate: {type: python, retry: {max_attempts: 1}, code: "def main(): raise OSError('the bank is closed')"}
    next: ship
  - {step: ship, type: python, code: "def main(): raise ValueError('no truck')", next: end}
  - {step: end}
"""


def forty_steps() -> str:
    """The workflow of forty steps, with steps that a worker without a network can do."""
    forty = yaml.safe_load(FORTY.read_text(encoding="utf-8"))
    steps = [_runnable(step) for step in forty["workflow"]]
    return yaml.safe_dump({"workload": forty["workload"], "workflow": steps}, sort_keys=False, width=1000)


def _runnable(step: dict[str, Any]) -> dict[str, Any]:
    name, kept = (
        step["step"],
        {key: step[key] for key in ("step", "next", "next_mode", "join", "on_error") if key in step},
    )
    if name == "wait_for_payment":
        next_step = [{"when": "{{ wait_for_payment.paid }}", "step": "book_payment"}, {"else": [{"step": "remind"}]}]
        return kept | {"type": "wait", "signal": "paid", "key": "{{ execution_id }}", "next": next_step}
    if name == "reserve_stock":
        task = {"type": "python", "args": {"line": "{{ line }}"}, "code": "def main(line): return {'reserved': line}"}
        return step | {"task": task}
    if name in {"start", "end"} or step.get("type") == "router":
        return step
    given = {"data": GIVEN.get(name, {}), "score": 1, "survey": False}
    return kept | {"type": "python", "code": f"def main():\n    print({name!r})\n    return {given!r}\n"}


def fill(site: Site, *, items: int = ITEMS) -> dict[str, int]:
    """Register and run everything; give the ids of executions by what they show."""
    for file in sorted(playbooks_folder().glob("*.yaml")):
        site.put(f"examples/{file.stem}", file.read_text(encoding="utf-8"))
    for path, body in TEXTS.items():
        site.register(path, body)
    site.register("shop/charge", TEXTS["shop/charge"].replace("max_attempts: 2", "max_attempts: 3"), version=2)
    site.register("shop/order_to_cash", forty_steps())
    found = {
        "long": site.start("shop/export")[0],
        "items": site.start("shop/import", {"items": items})[0],
        "forty": site.start("shop/order_to_cash")[0],
        "paid": site.start("shop/order_to_cash")[0],
        "parent": site.start("examples/nested_child")[0],
    }
    site.rows("select noetl.put_throttle('stripe', 5, 10, null)")
    site.put("shop/refund", document(REFUND, path="shop/refund", metadata=ONE_EACH))
    left = site.start("shop/refund", {"customer": 7}, count=3)[0]
    slow = REFUND.replace("compensate: {type: python, retry", "compensate: {type: crm, retry")
    site.put("shop/slow_refund", document(slow, path="shop/slow_refund", metadata=ONE_EACH))
    found["undoing"], _, found["queued"] = site.start("shop/slow_refund", {"customer": 8}, count=3)
    site.put("shop/invoice", document(CAUGHT, path="shop/invoice"))
    found["caught"] = site.start("shop/invoice", count=9)[0]
    for n in range(6):
        site.start("examples/order_approval", {"order_id": 4000 + n, "customer": f"ACME-{n}", "total": 120 + 40 * n})
    for name in ("conditional", "loop", "iterator", "fan_out_join", "error_handling"):
        site.start(f"examples/{name}", count=4)
    site.start("examples/payment_or_three_days")
    stopped, held, _ = site.start("examples/reminder", count=3)
    failed = [site.start("shop/charge", {"order_id": 4711 + n, "amount": 80 + n})[0] for n in range(60)]
    charged = site.start("shop/charge", {"card": {"number": "4000 0000 0000 0001"}}, count=30)
    for execution_id in (*failed, *charged, found["long"], found["parent"]):
        site.until_ended(execution_id, seconds=300)
    site.until_step(found["paid"], "wait_for_payment", "RUNNING")
    site.rows("select noetl.signal_execution(%s, 'paid', '{\"paid\": true}')", found["paid"])
    site.rows("select noetl.send_signal('stock', 'article 7', '{\"pieces\": 40}')")
    site.rows("select noetl.put_schedule('nightly report', 'examples/nightly_report', cron => '0 2 * * *')")
    site.rows("select noetl.put_schedule('stock', 'examples/conditional', \"every\" => '15 min')")
    site.rows("select noetl.pause_schedule('stock')")
    site.rows(
        "insert into noetl.dead_letter (execution_id, event_id, reason) select execution_id, event_id,"
        " 'the event names a step that the playbook does not have' from noetl.event where execution_id = %s limit 1",
        failed[0],
    )
    site.rows("select noetl.cancel_execution(%s, 'ordered twice')", stopped)
    site.rows("select noetl.pause_execution(%s, 'the bank is down')", held)
    operator = {"Authorization": f"Bearer {site.tokens['operator']}"}
    for execution_id in failed[:3]:
        url = f"{site.url}/api/v1/executions/{execution_id}/retry"
        httpx.post(url, json={}, headers=operator, trust_env=False).raise_for_status()
    site.until_ended(found["paid"], seconds=300)
    site.until_ended(found["items"], seconds=300)
    site.until_status(found["undoing"], "COMPENSATING")
    return found | {"failed": failed[-1], "charged": charged[-1], "left_undone": left}
