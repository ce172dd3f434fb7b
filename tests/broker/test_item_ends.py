"""Items of iterators that the broker runs: how many are open, and how they and their iterator end."""

from tests.stories import assert_story

EACH = """
workflow:
- {step: start, next: each}
- step: each
  type: iterator
  mode: async
  concurrency: 2
  collection: [1, 2, 3]
  element: n
  KEYS
"""
CHILDREN = EACH.replace("KEYS", "task: {type: playbook, path: p}")
JOBS = EACH.replace("KEYS", "distribute: true\n  task: {type: python, code: x}")
BEGUN = """
        > execution_start
            event step_started each
            event iterator_started each {"total": 3}
            event iteration_started each {"index": 0}
            event iteration_started each {"index": 1}"""


def test_an_iterator_over_a_playbook_starts_as_many_children_as_may_be_open() -> None:
    """The next starts when one ends. Duplicate ends count once. An event to itself completes the step."""
    assert_story(
        """
        workload: {cities: [Rome, Oslo, Bonn]}
        workflow:
        - {step: start, next: each}
        - step: each
          type: iterator
          collection: "{{ workload.cities }}"
          element: city
          mode: async
          concurrency: 2
          task: {type: playbook, path: examples/city, args: {city: "{{ city }}", at: "{{ _loop.index }}"}}
          next: end
        - {step: end, result: "{{ each }}"}
        """,
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 3}
            event iteration_started each {"index": 0}
            event iteration_started each {"index": 1}
            child each[0] examples/city {"city": "Rome", "at": 0}
            child each[1] examples/city {"city": "Oslo", "at": 1}
        > execution_complete each[1] {"t": 1}
            event iteration_completed each {"index": 1}
            event iteration_started each {"index": 2}
            child each[2] examples/city {"city": "Bonn", "at": 2}
        > execution_complete each[1] {"t": 1}  (duplicate)
        > execution_complete each[0] {"t": 0}
            event iteration_completed each {"index": 0}
        > iterator_completed each []  (recorded)
        > execution_complete each[2] {"t": 2}
            event iteration_completed each {"index": 2}
            post  iterator_completed each
        > iterator_completed each [{"t": 0}, {"t": 1}, {"t": 2}]
            event step_completed each
            event execution_complete [{"t": 0}, {"t": 1}, {"t": 2}]
        """,
    )


def test_events_about_items_that_are_not_open_change_nothing() -> None:
    """Unknown, waiting and ended items; an answer of the whole step; duplicates."""
    assert_story(
        CHILDREN,
        BEGUN
        + """
            child each[0] p
            child each[1] p
        > execution_complete each[9] 1  (not_open)
        > execution_complete each[2] 1  (not_open)
        > execution_failed each[2] {"message": "no"}  (not_open)
        > execution_complete each#2[0] 1  (not_open)
        > action_completed each [1]  (recorded)
        > iterator_completed each [1]  (recorded)
        > iteration_due each
        > execution_complete each[0] 1
            event iteration_completed each {"index": 0}
            event iteration_started each {"index": 2}
            child each[2] p
        > execution_failed each[0] {"message": "no"}  (duplicate)
        > child_due each  (not_open)
        > iteration_due each
        """,
    )


def test_an_item_that_cannot_be_rendered_fails_the_step() -> None:
    """In any turn and with any `on_error`: a template error is never ignored."""
    body = """
        workflow:
        - {step: start, next: each}
        - step: each
          type: iterator
          on_error: continue
          collection: [{x: 1}, {}]
          element: n
          MODE
          task: {type: playbook, path: p, args: {x: "{{ n.x }}"}}
        """
    undefined = "`n.x` is undefined: there is no such key in a mapping"
    assert_story(
        body.replace("MODE", "mode: async"),
        f"""
        > execution_start
            event step_started each
            event iterator_started each {{"total": 2}}
            event iteration_started each {{"index": 0}}
            event step_failed each "{undefined}"
            event execution_failed "{undefined}"
            child each[0] p {{"x": 1}}
            cancel all work
        """,
    )
    assert_story(
        body.replace("MODE", "mode: sequential"),
        f"""
        > execution_start
            event step_started each
            event iterator_started each {{"total": 2}}
            event iteration_started each {{"index": 0}}
            child each[0] p {{"x": 1}}
        > execution_complete each[0] 1
            event iteration_completed each {{"index": 0}}
            event step_failed each "{undefined}"
            event execution_failed "{undefined}"
            dead  each
            cancel items of each
            cancel all work
        """,
    )


def test_an_iterator_that_times_out_cancels_its_items() -> None:
    """The time limit covers all items together. There is no retry."""
    assert_story(
        CHILDREN,
        BEGUN
        + """
            child each[0] p
            child each[1] p
        > action_failed each {"message": "timeout: the action ran longer than 3 s"}
            event step_failed each "timeout: the action ran longer than 3 s"
            event execution_failed "timeout: the action ran longer than 3 s"
            dead  each
            cancel items of each
            cancel all work
        """,
    )


def test_start_and_end_may_iterate() -> None:
    """The list of `end` is the result."""
    assert_story(
        """
        workflow:
        - {step: start, type: iterator, collection: [1], element: n, task: {type: playbook, path: p}, next: end}
        - step: end
          type: iterator
          distribute: true
          collection: "{{ start }}"
          element: n
          task: {type: python, code: x, args: {n: "{{ n }}"}}
        """,
        """
        > execution_start
            event step_started start
            event iterator_started start {"total": 1}
            event iteration_started start {"index": 0}
            child start[0] p
        > execution_complete start[0] 5
            event iteration_completed start {"index": 0}
            post  iterator_completed start
        > iterator_completed start [5]
            event step_completed start
            event step_started end
            event iterator_started end {"total": 1}
            event iteration_started end {"index": 0}
            job   end[0] {"n": 5}
        > action_completed end[0] 6
            event iteration_completed end {"index": 0}
            post  iterator_completed end
        > iterator_completed end [6]
            event step_completed end
            event execution_complete [6]
        """,
    )


def test_a_failure_of_an_item_with_another_lease_is_stale() -> None:
    """The item runs on."""
    assert_story(
        JOBS,
        BEGUN
        + """
            job   each[0]
            job   each[1]
        > action_failed each[1] {"message": "old"}; stale  (stale)
        > action_completed each[1] 2
            event iteration_completed each {"index": 1}
            event iteration_started each {"index": 2}
            job   each[2]
        """,
    )
