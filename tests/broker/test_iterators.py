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


def test_the_first_failed_item_fails_the_step() -> None:
    """Its other children are cancelled. A mapping gives pairs."""
    assert_story(
        """
        workflow:
        - {step: start, next: each}
        - step: each
          type: iterator
          collection: {a: 1, b: 2}
          element: pair
          task: {type: playbook, path: "p/{{ pair.key }}"}
        """,
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 2}
            event iteration_started each {"index": 0}
            child each[0] p/a
        > execution_failed each[0] {"message": "no"}
            event iteration_failed each "no"
            event step_failed each "no"
            event execution_failed "no"
            dead  each
            abandon each
            withdraw
        > execution_complete each[1] {}  (after_end)
        """,
    )


def test_with_on_error_continue_a_failed_item_leaves_null() -> None:
    """`where`, `order_by`, `limit`, `enumerate` and `chunk` choose the items, in this order."""
    assert_story(
        """
        workflow:
        - {step: start, next: each}
        - step: each
          type: iterator
          collection: [1, 2, 3, 4, 5]
          element: n
          where: "n > 1"
          order_by: "-n"
          limit: 3
          chunk: 2
          enumerate: true
          on_error: continue
          task: {type: playbook, path: p, args: {chunk: "{{ n }}"}}
        """,
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 2}
            event iteration_started each {"index": 0}
            child each[0] p {"chunk": [{"item": 5, "index": 0}, {"item": 4, "index": 1}]}
        > execution_failed each[0] {"message": "no"}
            event iteration_failed each "no"
            event iteration_started each {"index": 1}
            child each[1] p {"chunk": [{"item": 3, "index": 2}]}
        > execution_complete each[1] 1
            event iteration_completed each {"index": 1}
            post  iterator_completed each
        > iterator_completed each [null, 1]
            event step_completed each
            event execution_complete [null, 1]
        """,
    )


def test_an_empty_collection_completes_with_an_empty_list() -> None:
    """Through the same event as other collections."""
    assert_story(
        """
        workflow:
        - {step: start, next: each}
        - {step: each, type: iterator, collection: [], element: n, task: {type: playbook, path: p}}
        """,
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 0}
            post  iterator_completed each
        > iterator_completed each []
            event step_completed each
            event execution_complete []
        """,
    )


def test_a_distributed_iterator_makes_a_job_for_each_item() -> None:
    """Several workers may share them."""
    assert_story(
        """
        workflow:
        - {step: start, next: each}
        - step: each
          type: iterator
          distribute: true
          mode: async
          collection: [1, 2]
          element: n
          task: {type: python, code: x, args: {n: "{{ n }}", of: "{{ _loop.count }}"}}
        """,
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 2}
            event iteration_started each {"index": 0}
            event iteration_started each {"index": 1}
            job   each[0] {"n": 1, "of": 2}
            job   each[1] {"n": 2, "of": 2}
        > action_completed each[1] 4
            event iteration_completed each {"index": 1}
        > action_completed each[0] 1
            event iteration_completed each {"index": 0}
            post  iterator_completed each
        > iterator_completed each [1, 4]
            event step_completed each
            event execution_complete [1, 4]
        """,
    )


def test_each_item_reads_the_inputs_of_the_iterator() -> None:
    """The first item's job belongs to the same visit but is not the iterator's job."""
    assert_story(
        """
        workflow:
        - {step: start, next: each}
        - step: each
          type: iterator
          collection: [1, 2]
          element: n
          distribute: true
          args: {base: 10}
          task: {type: python, code: x, args: {sum: "{{ base + n }}"}}
          next: [{when: "{{ base > 5 }}", step: end}]
        - {step: end}
        """,
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 2}
            event iteration_started each {"index": 0}
            job   each[0] {"base": 10, "sum": 11}
        > action_completed each[0] 11
            event iteration_completed each {"index": 0}
            event iteration_started each {"index": 1}
            job   each[1] {"base": 10, "sum": 12}
        > action_completed each[1] 12
            event iteration_completed each {"index": 1}
            post  iterator_completed each
        > iterator_completed each [11, 12]
            event step_completed each
            event execution_complete [11, 12]
        """,
    )


def test_a_collection_that_is_no_list_fails_the_step() -> None:
    """The error has its type."""
    assert_story(
        """
        workflow:
        - {step: start, next: each}
        - {step: each, type: iterator, collection: "{{ 5 }}", element: n, task: {type: playbook, path: p}}
        """,
        """
        > execution_start
            event step_started each
            event step_failed each "`collection` must be a list or a mapping, it is 5"
            event execution_failed "`collection` must be a list or a mapping, it is 5"
            withdraw
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


def test_a_mapping_is_iterated_in_the_order_of_jsonb() -> None:
    """Whether or not it was stored before."""
    assert_story(
        """
        workload: {sizes: {long: 3, s: 1, mid: 2}}
        workflow:
        - {step: start, next: each}
        - step: each
          type: iterator
          distribute: true
          mode: async
          collection: "{{ workload.sizes }}"
          element: size
          task: {type: python, code: x, args: {size: "{{ size.value }}", all: "{{ workload.sizes | to_json }}"}}
        """,
        """
        > execution_start
            event step_started each
            event iterator_started each {"total": 3}
            event iteration_started each {"index": 0}
            event iteration_started each {"index": 1}
            event iteration_started each {"index": 2}
            job   each[0] {"size": 1, "all": "{\\"s\\": 1, \\"mid\\": 2, \\"long\\": 3}"}
            job   each[1] {"size": 2, "all": "{\\"s\\": 1, \\"mid\\": 2, \\"long\\": 3}"}
            job   each[2] {"size": 3, "all": "{\\"s\\": 1, \\"mid\\": 2, \\"long\\": 3}"}
        """,
    )
