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
