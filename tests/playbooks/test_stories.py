"""Each playbook in playbooks/ as a story: the events of its workers, and all decisions."""

# ruff: noqa: E501 - lines of stories

from __future__ import annotations

from textwrap import dedent

import pytest

from noetl_broker.history.story import play_story
from noetl_broker.playbook import PlaybookRules, compile_playbook
from noetl_broker.resources import playbooks_folder

STORIES = {
    "checked_order": """
        > execution_start {"order_id": "o-1", "total": -1}
            event execution_failed "the workload does not fit workload_schema: total is -1, the least is 0"
            withdraw
    """,
    "place_order": """
        > execution_start
            event step_started place
            child place examples/checked_order {"total": 19.99, "order_id": "o-1"}
        > action_completed place {"booked": "o-1", "cents": 1999}
            event step_completed place
            event execution_complete {"booked": "o-1", "refused": []}
    """,
    "conditional": """
        > execution_start
            event step_started measure
            job   measure {"city": "Paris"}
        > action_completed measure {"city": "Paris", "temperature": 31}
            event step_completed measure
            event step_started warn
            job   warn {"city": "Paris", "excess": 6}
        > action_completed warn {"message": "hot"}
            event step_completed warn
            event execution_complete {"message": "hot", "temperature": 31}
    """,
    "create_tables": """
        > execution_start
            event step_started create_flat_table
            job   create_flat_table
        > action_completed create_flat_table {}
            event step_completed create_flat_table
            event step_started create_nested_table
            job   create_nested_table
        > action_completed create_nested_table {}
            event step_completed create_nested_table
            event step_started create_summary_table
            job   create_summary_table
        > action_completed create_summary_table {"rows": []}
            event step_completed create_summary_table
            event execution_complete {"rows": []}
    """,
    "diamond": """
        > execution_start
            event step_started assess
            job   assess {"amount": 120}
        > action_completed assess {"amount": 120, "vip": false}
            event step_completed assess
            event step_started automatic
            job   automatic {"fee": 3}
        > action_completed automatic {"handled": "automatically", "fee": 3}
            event step_completed automatic
            event step_started book
            job   book {"handled": "automatically", "amount": 123}
        > action_completed book {"booked": 123}
            event step_completed book
            event execution_complete {"booked": 123}
    """,
    "flaky_api": """
        > execution_start {"cities": ["Rome", "Oslo", "Atlantis", "Bonn", "Lima"]}
            event step_started ask
            event iterator_started ask {"total": 5}
            event iteration_started ask {"index": 0}
            event iteration_started ask {"index": 1}
            event iteration_started ask {"index": 2}
            event iteration_started ask {"index": 3}
            event iteration_started ask {"index": 4}
            job   ask[0] {"city": "Rome", "attempt": "{{ job.attempt }}"}
            job   ask[1] {"city": "Oslo", "attempt": "{{ job.attempt }}"}
            job   ask[2] {"city": "Atlantis", "attempt": "{{ job.attempt }}"}
            job   ask[3] {"city": "Bonn", "attempt": "{{ job.attempt }}"}
            job   ask[4] {"city": "Lima", "attempt": "{{ job.attempt }}"}
        > action_failed ask[0] {"message": "the service is busy", "type": "ConnectionError"}; attempt 1
            event action_retry ask "the service is busy"
            retry ask[0] 0.036 s
        > action_completed ask[1] {"city": "Oslo", "letters": 4}
            event iteration_completed ask {"index": 1}
        > action_failed ask[2] {"message": "no such city", "type": "LookupError"}; attempt 1
            event iteration_failed ask "no such city"
            dead  ask[2]
        > action_completed ask[3] {"city": "Bonn", "letters": 4}
            event iteration_completed ask {"index": 3}
        > action_completed ask[4] {"city": "Lima", "letters": 4}
            event iteration_completed ask {"index": 4}
        > action_completed ask[0] {"city": "Rome", "letters": 4}; attempt 2
            event iteration_completed ask {"index": 0}
            post  iterator_completed ask
        > iterator_completed ask [{"city": "Rome", "letters": 4}, {"city": "Oslo", "letters": 4}, null, {"city": "Bonn", "letters": 4}, {"city": "Lima", "letters": 4}]
            event step_completed ask
            event execution_complete {"answers": [{"city": "Rome", "letters": 4}, {"city": "Oslo", "letters": 4}, {"city": "Bonn", "letters": 4}, {"city": "Lima", "letters": 4}], "lost": [2]}
    """,
    "quarantine": """
        > execution_start
            event step_started check
            event iterator_started check {"total": 3}
            event iteration_started check {"index": 0}
            event iteration_started check {"index": 1}
            event iteration_started check {"index": 2}
            job   check[0] {"row": {"id": 1, "amount": "30"}}
            job   check[1] {"row": {"id": 2, "amount": "many"}}
            job   check[2] {"row": {"id": 3, "amount": "12"}}
        > action_completed check[0] {"id": 1, "amount": 30}
            event iteration_completed check {"index": 0}
        > action_failed check[1] {"message": "invalid literal for int() with base 10: 'many'", "type": "ValueError"}
            event iteration_completed check "invalid literal for int() with base 10: 'many'" {"bad": {"id": 2, "amount": "many"}, "why": "invalid literal for int() with base 10: 'many'"}
            dead  check[1]
        > action_completed check[2] {"id": 3, "amount": 12}
            event iteration_completed check {"index": 2}
            post  iterator_completed check
        > iterator_completed check [{"id": 1, "amount": 30}, {"bad": {"id": 2, "amount": "many"}, "why": "invalid literal for int() with base 10: 'many'"}, {"id": 3, "amount": 12}]
            event step_completed check
            event step_started set_aside
            job   set_aside {"rows": [{"bad": {"id": 2, "amount": "many"}, "why": "invalid literal for int() with base 10: 'many'"}]}
        > action_completed set_aside [2]
            event step_completed set_aside
            event step_started load
            job   load {"rows": [{"id": 1, "amount": 30}, {"id": 3, "amount": 12}]}
        > action_completed load 42
            event step_completed load
            event execution_complete {"loaded": 42, "set_aside": [2]}
    """,
    "distributed_iterator": """
        > execution_start {"readings": ["12", "broken"]}
            event step_started convert
            event iterator_started convert {"total": 2}
            event iteration_started convert {"index": 0}
            event iteration_started convert {"index": 1}
            job   convert[0] {"celsius": "12"}
            job   convert[1] {"celsius": "broken"}
        > action_failed convert[1] {"message": "no number"}
            event iteration_failed convert "no number"
            dead  convert[1]
        > action_completed convert[0] 53.6
            event iteration_completed convert {"index": 0}
            post  iterator_completed convert
        > iterator_completed convert [53.6, null]
            event step_completed convert
            event execution_complete {"fahrenheit": [53.6, null], "failed": 1}
    """,
    "error_handling": """
        > execution_start
            event step_started divide
            job   divide {"divisor": 0}
        > action_failed divide {"message": "division by zero"}
            event step_failed divide "division by zero"
            event step_started report
            job   report {"why": "division by zero"}
            dead  divide
        > action_completed report {"reported": "division by zero"}
            event step_completed report
            event execution_complete {"reported": "division by zero"}
    """,
    "fan_out_join": """
        > execution_start {"words": ["a"]}
            event step_started upper
            event step_started lengths
            event step_started reverse
            job   upper {"words": ["a"]}
            job   lengths {"words": ["a"]}
            job   reverse {"words": ["a"]}
        > action_completed reverse ["a"]
            event step_completed reverse
        > action_completed upper ["A"]
            event step_completed upper
        > action_completed lengths [1]
            event step_completed lengths
            event step_started gather
            job   gather {"upper": ["A"], "lengths": [1], "reverse": ["a"]}
        > action_completed gather [{"upper": "A"}]
            event step_completed gather
            event execution_complete [{"upper": "A"}]
    """,
    "iterator": """
        > execution_start
            event step_started shout
            job   shout
        > action_completed shout ["APPLE", "BANANA"]
            event step_completed shout
            event step_started price
            job   price {"name": "{{ entry.key }}", "cost": "{{ entry.value }}"}
        > action_completed price [null]
            event step_completed price
            event execution_complete {"shouted": ["APPLE", "BANANA"], "bought": [null]}
    """,
    "iterator_playbook": """
    > execution_start {"lines": [{"pieces": 1, "price": 4}, {"pieces": 2, "price": 8}]}
        event step_started charge
        event iterator_started charge {"total": 2}
        event iteration_started charge {"index": 0}
        event iteration_started charge {"index": 1}
        child charge[0] examples/iterator_playbook_item {"number": 1, "line": {"price": 8, "pieces": 2}, "discount": 10}
        child charge[1] examples/iterator_playbook_item {"number": 2, "line": {"price": 4, "pieces": 1}, "discount": 10}
    > execution_complete charge[1] {"amount": 4}
        event iteration_completed charge {"index": 1}
    > execution_complete charge[0] {"amount": 16}
        event iteration_completed charge {"index": 0}
        post  iterator_completed charge
    > iterator_completed charge [{"amount": 16}, {"amount": 4}]
        event step_completed charge
        event execution_complete {"invoice": [{"amount": 16}, {"amount": 4}], "total": 20}
    """,
    "iterator_playbook_item": """
        > execution_start {"number": 2, "line": {"article": "pen", "pieces": 30, "price": 1}, "discount": 10}
            event step_started reduce
            job   reduce {"line": {"price": 1, "pieces": 30, "article": "pen"}, "discount": 10}
        > action_completed reduce 27
            event step_completed reduce
            event execution_complete {"line": "2 pen", "amount": 27}
    """,
    "loop": """
        > execution_start {"rounds": 2}
            event step_started count
            job   count {"counter": 0}
        > action_completed count {"counter": 1}
            event step_completed count
            event step_started count#2
            job   count#2 {"counter": 1}
        > action_completed count#2 {"counter": 2}
            event step_completed count#2
            event execution_complete {"rounds": 2}
    """,
    "nested_child": """
        > execution_start
            event step_started deliver
            child deliver examples/nested_child_courier {"parcel": "a book", "order": 1}
        > action_failed deliver {"message": "division by zero"}
            event action_retry deliver "division by zero"
            delegated deliver 0.05 s
            abandon deliver
        > child_due deliver
            child deliver examples/nested_child_courier {"order": 1, "parcel": "a book"}
        > action_completed deliver {"received": "a book"}
            event step_completed deliver
            event execution_complete {"received": "a book"}
    """,
    "nested_child_courier": """
        > execution_start {"parcel": "a book", "order": 7}
            event step_started ring
            job   ring
        > action_completed ring {"rows": [{"rings": 2}]}
            event step_completed ring
            event step_started hand_over
            child hand_over examples/nested_child_receipt {"parcel": "a book", "rings": 2}
        > action_completed hand_over {"received": "a book"}
            event step_completed hand_over
            event execution_complete "the courier is back"
    """,
    "nested_child_receipt": """
        > execution_start {"parcel": "a book", "rings": 2}
            event step_started sign
            job   sign {"parcel": "a book", "rings": 2}
        > action_completed sign {"received": "a book", "rings": 2}
            event step_completed sign
            event execution_complete {"received": "a book", "rings": 2}
    """,
    "nested_iterator": """
        > execution_start {"rows": [1, 2], "columns": [3]}
            event step_started table
            event iterator_started table {"total": 2}
            event iteration_started table {"index": 0}
            event iteration_started table {"index": 1}
            child table[0] examples/nested_iterator_row {"row": 1, "columns": [3]}
            child table[1] examples/nested_iterator_row {"row": 2, "columns": [3]}
        > execution_complete table[1] [6]
            event iteration_completed table {"index": 1}
        > execution_complete table[0] [3]
            event iteration_completed table {"index": 0}
            post  iterator_completed table
        > iterator_completed table [[3], [6]]
            event step_completed table
            event execution_complete [[3], [6]]
    """,
    "nested_iterator_row": """
        > execution_start {"row": 2, "columns": [5]}
            event step_started multiply
            event iterator_started multiply {"total": 1}
            event iteration_started multiply {"index": 0}
            job   multiply[0] {"row": 2, "column": 5}
        > action_completed multiply[0] 10
            event iteration_completed multiply {"index": 0}
            post  iterator_completed multiply
        > iterator_completed multiply [10]
            event step_completed multiply
            event execution_complete [10]
    """,
    "nightly_report": """
        > execution_start {"schedule": {"name": "nightly", "at": "2026-11-28T02:00:00+01:00"}, "orders": []}
            event step_started count
            job   count {"at": "2026-11-28T02:00:00+01:00", "orders": []}
        > action_completed count {"day": "2026-11-27", "orders": 0, "total": 0}
            event step_completed count
            event step_started report
            job   report {"day": "2026-11-27", "total": 0}
        > action_completed report {"message": "nothing"}
            event step_completed report
            event execution_complete {"schedule": "nightly", "message": "nothing"}
    """,
    "nightly_import": """
        > execution_start {"schedule": {"name": "nightly", "at": "2026-11-28T01:30:00+01:00"}}; overlap nightly skip, place busy
            event execution_cancelled "skipped: no place is free: schedule nightly"
            withdraw
    """,
    "customer_jobs": """
        > execution_start; place busy
            event execution_queued {"reason": "waits for a place: customer c-7"}
        > place_free; given
            event execution_admitted
            event step_started book
            job   book {"customer": "c-7", "amount": 12}
        > action_completed book {"customer": "c-7", "booked": 12}
            event step_completed book
            event execution_complete {"booked": 12}
    """,
    "rebuild_index": """
        > execution_start; place busy
            event execution_queued {"reason": "waits for a place: playbook examples/rebuild_index"}
        > place_free; given
            event execution_admitted
            event step_started rebuild
            job   rebuild {"documents": ["a", "b", "c"]}
        > execution_cancel {"reason": "execution 5 took its place (on_limit: cancel_running)"}
            event execution_cancelled "execution 5 took its place (on_limit: cancel_running)"
            withdraw
    """,
    "retry": """
        > execution_start
            event step_started prepare
            job   prepare
        > action_completed prepare {}
            event step_completed prepare
            event step_started unreliable
            job   unreliable {"id": 1}
        > action_failed unreliable {"message": "division by zero"}
            event action_retry unreliable "division by zero"
            retry unreliable 0.05 s
        > action_failed unreliable {"message": "division by zero"}
            event action_retry unreliable "division by zero"
            retry unreliable 0.1 s
        > action_completed unreliable {"rows": [1]}
            event step_completed unreliable
            event execution_complete {"rows": [1]}
    """,
    "start_and_end": """
        > execution_start
            event step_started start
            job   start {"text": "a b c"}
        > action_completed start {"words": ["a"]}
            event step_completed start
            event step_started end
            job   end {"words": ["a"]}
        > action_completed end {"count": 1}
            event step_completed end
            event execution_complete {"count": 1}
    """,
    "workbook": """
        > execution_start
            event step_started first
            event step_started second
            job   first {"greeting": "Hello", "name": "Ada"}
            job   second {"greeting": "Good morning", "name": "Grace"}
        > action_completed second {"text": "b"}
            event step_completed second
        > action_completed first {"text": "a"}
            event step_completed first
            event execution_complete ["a", "b"]
    """,
    "two_offers": """
        > execution_start
            event step_started north
            event step_started south
            event step_started west
            job   north {"price": 20}
            job   south {"price": 17}
            wait  west timer
            timer west wait 2026-01-01T01:00:01.000000Z
        > action_completed south 17
            event step_completed south
        > action_completed north 20
            event step_completed north
            event step_cancelled west
            event step_started choose
            job   choose {"north": 20, "south": 17}
            close west
        > action_completed choose {"seller": "south", "price": 17}
            event step_completed choose
            event execution_complete {"seller": "south", "price": 17}
    """,
    "order_approval": """
        > execution_start
            event step_started approve
            wait  approve approval {"title": "Order 7: 120 EUR", "details": {"customer": "Ada"}, "form": {"discount": {"type": "number", "minimum": 0, "maximum": 30, "default": 0}}, "assignees": ["finance"]}
            timer approve timeout 2026-01-02T00:00:01.000000Z
        > approval_decided approve {"approved": true, "by": "ann", "at": "2026-01-01T09:00:00.000000Z", "form": {"discount": 5, "comment": null}}
            event step_completed approve {"comment": null, "discount": 5, "approved": true, "by": "ann", "at": "2026-01-01T09:00:00.000000Z"}
            event step_started ship
            job   ship {"total": 120, "discount": 5}
        > action_completed ship {"shipped": true, "invoice": 114}
            event step_completed ship
            event execution_complete {"shipped": true, "invoice": 114}
    """,
    "order_refund": """
        > execution_start {"address": ""}
            event step_started reserve
            job   reserve {"order_id": "o-7"}
        > action_completed reserve {"reservation": "r-o-7"}
            event step_completed reserve
            event step_started charge
            job   charge {"order_id": "o-7", "total": 30}
            undo  reserve
        > action_completed charge {"charge": "c-o-7", "amount": 30}
            event step_completed charge
            event step_started ship
            job   ship {"address": ""}
            undo  charge
        > action_failed ship {"message": "the order has no address", "type": "ValueError"}
            event step_failed ship "the order has no address"
            event execution_compensating "the order has no address"
            event compensation_started charge
            job   charge!undo {"charge": "c-o-7", "amount": 30, "why": "the order has no address"}
            dead  ship
            withdraw
        > action_completed charge!undo {"refunded": 30}
            event compensation_completed charge
            event compensation_started reserve
            job   reserve!undo {"reservation": "r-o-7"}
        > action_completed reserve!undo {"released": "r-o-7"}
            event compensation_completed reserve
            event execution_failed "the order has no address"
    """,
    "order_by_hand": """
        > execution_start {"address": ""}
            event step_started charge
            job   charge {"order_id": "o-7", "total": 300}
        > action_completed charge {"charge": "c-o-7", "amount": 300}
            event step_completed charge
            event step_started ship
            job   ship {"address": ""}
            undo  charge
        > action_failed ship {"message": "the order has no address", "type": "ValueError"}
            event step_failed ship "the order has no address"
            event execution_compensating "the order has no address"
            event compensation_started charge
            child charge!undo examples/refund_by_hand {"charge": "c-o-7", "amount": 300, "why": "the order has no address"}
            dead  ship
            withdraw
        > action_completed charge!undo {"refunded": 300, "by": "ann"}
            event compensation_completed charge
            event execution_failed "the order has no address"
    """,
    "refund_by_hand": """
        > execution_start {"charge": "c-o-7", "amount": 300}
            event step_started ask
            wait  ask approval {"title": "Refund 300 EUR of charge c-o-7?", "details": {"why": "the customer changed his mind"}, "assignees": ["finance"]}
        > approval_decided ask {"approved": false, "by": "ann", "at": "2026-01-01T09:00:00.000000Z", "form": {"comment": null}}
            event step_completed ask {"comment": null, "approved": false, "by": "ann", "at": "2026-01-01T09:00:00.000000Z"}
            event step_started refuse
            event step_failed refuse "ann refuses the refund of c-o-7"
            event execution_failed "ann refuses the refund of c-o-7"
            withdraw
    """,
    "payment": """
        > execution_start
            event step_started paid
            wait  paid signal payment 42
            timer paid timeout 2026-01-02T00:00:01.000000Z
        > execution_signal {"name": "payment", "key": "42", "payload": {"amount": 5}, "at": "2026-01-01T09:00:00.000000Z"}
        > execution_signal {"name": "payment", "key": "42", "payload": {"amount": 30}, "at": "2026-01-01T09:00:01.000000Z"}
            event step_completed paid {"amount": 30}
            event step_started ship
            job   ship {"amount": 30}
        > action_completed ship {"shipped": true, "paid": 30}
            event step_completed ship
            event execution_complete {"shipped": true, "paid": 30}
    """,
    "payment_or_three_days": """
        > execution_start
            event step_started paid
            event step_started three_days
            wait  paid signal payment 42
            wait  three_days timer
            timer three_days wait 2026-01-04T00:00:01.000000Z
        > timer_due three_days {"purpose": "wait", "due_at": "2026-01-04T00:00:01.000000Z"}
            event step_completed three_days {"waited_until": "2026-01-04T00:00:01.000000Z"}
            event step_cancelled paid
            event step_started settle
            job   settle
            close paid
        > action_completed settle {"status": "cancelled"}
            event step_completed settle
            event execution_complete {"status": "cancelled"}
    """,
    "reminder": """
        > execution_start
            event step_started invite
            job   invite {"guest": "Ada"}
        > action_completed invite {"sent": "Dear Ada, please come"}
            event step_completed invite
            event step_started answered
            wait  answered signal answer Ada
            timer answered timeout 2026-01-04T00:00:02.000000Z
        > timer_due answered {"purpose": "timeout", "due_at": "2026-01-04T00:00:02.000000Z"}
            event step_failed answered "no signal came in time"
            event step_started remind
            job   remind {"guest": "Ada", "count": 1}
        > action_completed remind {"sent": "Dear Ada, do you come?", "count": 1}
            event step_completed remind
            event step_started answered#2
            wait  answered#2 signal answer Ada
            timer answered#2 timeout 2026-01-04T00:00:04.000000Z
        > execution_signal {"name": "answer", "key": "Ada", "payload": {"comes": true}, "at": "2026-01-05T09:00:01.000000Z"}
            event step_completed answered#2 {"comes": true}
            event execution_complete {"comes": true, "reminders": 1}
    """,
    "poll_until_ready": """
        > execution_start
            event step_started ask
            job   ask {"asked": 1}
        > action_completed ask {"asked": 1, "ready": false}
            event step_completed ask
            event step_started rest
            wait  rest timer
            timer rest wait 2026-01-01T00:00:32.000000Z
        > timer_due rest {"purpose": "wait", "due_at": "2026-01-01T00:00:32.000000Z"}
            event step_completed rest {"waited_until": "2026-01-01T00:00:32.000000Z"}
            event step_started ask#2
            job   ask#2 {"asked": 2}
        > action_completed ask#2 {"asked": 2, "ready": true}
            event step_completed ask#2
            event execution_complete {"asked": 2}
    """,
    "fan_out_deadline": """
        > execution_start
            event step_started north
            event step_started south
            event step_started west
            event step_started deadline
            job   north
            job   south
            wait  west timer
            wait  deadline timer
            timer west wait 2026-01-01T01:00:01.000000Z
            timer deadline wait 2026-01-01T00:02:01.000000Z
        > action_completed north 20
            event step_completed north
        > action_completed south 17
            event step_completed south
        > timer_due deadline {"purpose": "wait", "due_at": "2026-01-01T00:02:01.000000Z"}
            event step_completed deadline {"waited_until": "2026-01-01T00:02:01.000000Z"}
            event step_cancelled west
            event step_started collect
            job   collect {"offers": {"north": 20, "south": 17, "west": null}}
            close west
        > action_completed collect {"best": "south", "came": ["north", "south"]}
            event step_completed collect
            event execution_complete {"best": "south", "came": ["north", "south"]}
    """,
    "import_orders": """
        > execution_start
            event step_started fetch
            job   fetch {"day": "2026-11-27"}
        > action_completed fetch {"day": "2026-11-27", "amounts": [30, 12]}
            event step_completed fetch
            event step_started load
            job   load {"day": "2026-11-27", "amount": 42}
        > action_failed load {"message": "relation shop.sales does not exist"}
            event step_failed load "relation shop.sales does not exist"
            event execution_failed "relation shop.sales does not exist"
            dead  load
            withdraw
    """,
    "ship_items": """
        > execution_start
            event step_started ship
            event iterator_started ship {"total": 2}
            event iteration_started ship {"index": 0}
            event iteration_started ship {"index": 1}
            child ship[0] examples/ship_items#ship {"sku": "mug", "count": 2, "stock": 5}
            child ship[1] examples/ship_items#ship {"sku": "pen", "count": 1, "stock": 0}
        > execution_complete ship[1] {"ordered": "1 x pen"}
            event iteration_completed ship {"index": 1}
        > execution_complete ship[0] {"label": 7, "shipped": "2 x mug"}
            event iteration_completed ship {"index": 0}
            post  iterator_completed ship
        > iterator_completed ship [{"label": 7, "shipped": "2 x mug"}, {"ordered": "1 x pen"}]
            event step_completed ship
            event execution_complete [{"label": 7, "shipped": "2 x mug"}, {"ordered": "1 x pen"}]
    """,
    "ten_calls_a_second": """
        > execution_start {"orders": [7]}
            event step_started ask
            event iterator_started ask {"total": 1}
            event iteration_started ask {"index": 0}
            job   ask[0] {"order": 7}; limit rates_service shop
        > action_completed ask[0] {"order": 7, "paid": true}
            event iteration_completed ask {"index": 0}
            post  iterator_completed ask
        > iterator_completed ask [{"order": 7, "paid": true}]
            event step_completed ask
            event execution_complete [{"order": 7, "paid": true}]
    """,
    "watched_import": """
        > execution_start {"rows": 0}
            event step_started load
            job   load {"day": "2026-11-27", "rows": 0}
        > action_failed load {"message": "no rows", "type": "ValueError"}
            event step_failed load "no rows"
            event execution_failed "no rows"
            dead  load
            withdraw
            start examples/alarm {"team": "data", "text": "2026-11-27 is missing: no rows", "execution_id": 1, "path": "examples/watched_import", "step": "load", "error": {"step": "load", "message": "no rows", "type": "ValueError"}}
    """,
    "alarm": """
        > execution_start {"path": "examples/watched_import", "step": "load"}
            event step_started tell
            job   tell {"team": "operations", "text": "examples/watched_import failed in load: something failed"}
        > action_completed tell {"to": "operations"}
            event step_completed tell
            event execution_complete {"to": "operations"}
    """,
}


@pytest.mark.parametrize("name", sorted(file.stem for file in playbooks_folder().glob("*.yaml")))
def test_the_core_tells_the_story_of_the_example(name: str) -> None:
    """Each example has a story, and decides it exactly."""
    text = (playbooks_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    expected = dedent(STORIES[name]).strip()
    assert play_story(compile_playbook(text, rules=PlaybookRules()), expected) == expected
