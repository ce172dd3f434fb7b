"""Iterators that the broker runs: items, open items, and results by index."""

from tests.stories import assert_story


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


def test_the_job_of_a_failed_item_is_dead_and_next_reads_the_steps_inputs() -> None:
    """`next` reads the inputs of the step, not of the item."""
    assert_story(
        """
        workflow:
        - {step: start, next: [{step: each, args: {n: 9}}]}
        - step: each
          type: iterator
          distribute: true
          collection: [1, 2]
          element: i
          on_error: continue
          task: {type: python, code: x, args: {n: "{{ i }}"}}
          next: [{when: "n == 9", step: b, args: {n: "{{ n }}"}}]
        - {step: b, type: python, code: x}
        """,
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 2}
            event iteration_started each {"index": 0}
            job   each[0] {"n": 1}
        > action_failed each[0] {"message": "no"}
            event iteration_failed each "no"
            event iteration_started each {"index": 1}
            job   each[1] {"n": 2}
            dead  each[0]
        > action_completed each[1] 5
            event iteration_completed each {"index": 1}
            post  iterator_completed each
        > action_failed each[0] {"message": "no"}  (duplicate)
        > action_completed each[7] 1  (not_open)
        > iterator_completed each [null, 5]
            event step_completed each
            event step_started b
            job   b {"n": 9}
        """,
    )
