"""Every playbook in playbooks/ as a story: the events that its workers send, and everything that comes of them."""

from __future__ import annotations

from textwrap import dedent

import pytest

from noetl_broker.broker.story import play
from noetl_broker.playbook import Rules, compile_playbook
from noetl_broker.resources import playbooks_folder

STORIES = {
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
}


@pytest.mark.parametrize("name", sorted(file.stem for file in playbooks_folder().glob("*.yaml")))
def test_the_core_tells_the_story_of_the_example(name: str) -> None:
    """To the letter; an example without a story is a failure too."""
    text = (playbooks_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    expected = dedent(STORIES[name]).strip()
    assert play(compile_playbook(text, rules=Rules()), expected) == expected
