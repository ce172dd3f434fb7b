"""What is undone of iterators and of children: stories, event by event."""

from __future__ import annotations

from tests.stories import assert_story

CHILDREN = """
    workflow:
    - {step: start, next: [p, q, z]}
    - {step: p, type: playbook, path: sub, next: end}
    - {step: q, type: playbook, path: sub, next: end}
    - {step: z, type: http, url: x, next: end}
    - {step: end}
"""
CHILD_WITH_COMPENSATE = """
    workflow:
    - {step: start, next: [p, z]}
    - step: p
      type: playbook
      path: sub
      compensate:
        type: playbook
        path: unsub
        args: {id: "{{ result }}"}
        retry: {max_attempts: 2, jitter: false}
      next: end
    - {step: z, type: http, url: x, next: end}
    - {step: end}
"""
ITEMS_OF_CHILDREN = """
    workflow:
    - {step: start, next: it}
    - step: it
      type: iterator
      collection: [1, 2, 3]
      element: item
      mode: async
      concurrency: 2
      task: {type: playbook, path: sub}
"""
ITEMS = """
    workflow:
    - {step: start, next: it}
    - step: it
      type: iterator
      collection: [1, 2, 3, 4]
      element: item
      mode: async
      concurrency: 3
      on_error: fail
      task:
        type: http
        url: x
        args: {n: "{{ item * 10 }}"}
        compensate: {type: http, args: {of: "{{ n }} {{ item }} {{ _loop.index }} of {{ _loop.count }}: {{ result }}"}}
      next: b
    - {step: b, type: http, url: x}
"""
ITERATOR_WITH_COMPENSATE = """
    workflow:
    - {step: start, next: it}
    - step: it
      type: iterator
      collection: [1, 2, 3, 4]
      element: item
      mode: async
      concurrency: 3
      on_error: continue
      task:
        type: http
        url: x
        args: {n: "{{ item * 10 }}"}
        compensate: {type: http, args: {of: "{{ n }} {{ item }} {{ _loop.index }} of {{ _loop.count }}: {{ result }}"}}
      compensate: {type: http, args: {all: "{{ result }}"}}
      next: b
    - {step: b, type: http, url: x}
"""
ITEMS_GO_ON = """
    workflow:
    - {step: start, next: it}
    - step: it
      type: iterator
      collection: [1, 2, 3, 4]
      element: item
      mode: async
      concurrency: 3
      on_error: continue
      task:
        type: http
        url: x
        args: {n: "{{ item * 10 }}"}
        compensate: {type: http, args: {of: "{{ n }} {{ item }} {{ _loop.index }} of {{ _loop.count }}: {{ result }}"}}
      next: b
    - {step: b, type: http, url: x}
"""


def test_a_child_that_completed_long_ago_is_undone() -> None:
    """Each child says whether it has something to undo. One that runs ends first."""
    assert_story(
        CHILDREN,
        """
        > execution_start
            event step_started p
            event step_started q
            event step_started z
            job   z
            child p sub
            child q sub
        > action_completed p 1; undo child 77
            event step_completed p
            undo  p child 77
        > action_failed z {"message": "no"}
            event step_failed z "no"
            event execution_compensating "no"
            dead  z
            cancel all work
            drain q
        > action_completed q 2; undo child 78  (late)
            event compensation_started q
            undo execution 78; answer 1
            undo  q child 78
        > action_completed q!undo
            event compensation_completed q
            event compensation_started p
            undo execution 77; answer 1
        > action_completed p!undo
            event compensation_completed p
            event execution_failed "no"
        """,
    )


def test_a_child_that_was_cancelled_has_undone_itself() -> None:
    """Its parent waits for its end."""
    assert_story(
        CHILDREN,
        """
        > execution_start
            event step_started p
            event step_started q
            event step_started z
            job   z
            child p sub
            child q sub
        > action_completed p 1; undo child 77
            event step_completed p
            undo  p child 77
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain q
        > action_failed z {"message": "cancelled", "type": "cancelled"}  (duplicate)
        > action_failed q {"message": "cancelled", "type": "child_cancelled"}
            event compensation_started p
            undo execution 77; answer 1
        > action_completed p!undo
            event compensation_completed p
            event execution_cancelled "cancelled"
        """,
    )


def test_a_parent_with_nothing_of_its_own_to_undo_ends_at_once() -> None:
    """Its children undo by themselves."""
    assert_story(
        CHILDREN,
        """
        > execution_start
            event step_started p
            event step_started q
            event step_started z
            job   z
            child p sub
            child q sub
        > execution_cancel
            event execution_cancelled "cancelled"
            cancel all work
        > action_failed q {"message": "cancelled"}  (after_end)
        """,
    )


def test_a_compensate_of_the_step_replaces_that_of_the_child() -> None:
    """It may be a playbook, which is started again after a failure."""
    assert_story(
        CHILD_WITH_COMPENSATE,
        """
        > execution_start
            event step_started p
            event step_started z
            job   z
            child p sub
        > action_completed p 1; undo child 77
            event step_completed p
            undo  p
        > action_failed z {"message": "no"}
            event step_failed z "no"
            event execution_compensating "no"
            event compensation_started p
            child p!undo unsub {"id": 1}
            dead  z
            cancel all work
        > action_failed p!undo {"message": "away"}; attempt 1
            delegated p!undo 1 s
        > child_due p!undo
            child p!undo unsub {"id": 1}
        > action_failed p!undo {"message": "away"}; attempt 1  (duplicate)
        > action_completed p!undo; attempt 2
            event compensation_completed p
            event execution_failed "no"
        """,
    )


def test_children_of_an_iterator_are_undone() -> None:
    """The item that runs is draining."""
    assert_story(
        ITEMS_OF_CHILDREN,
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 3}
            event iteration_started it {"index": 0}
            event iteration_started it {"index": 1}
            child it[0] sub
            child it[1] sub
        > execution_complete it[0] 1; undo child 70
            event iteration_completed it {"index": 0}
            event iteration_started it {"index": 2}
            child it[2] sub
            undo  it[0] child 70
        > execution_failed it[1] {"message": "no"}
            event iteration_failed it "no"
            event step_failed it "no"
            event execution_compensating "no"
            dead  it
            cancel items of it
            cancel all work
            drain it
        > execution_complete it[2] 1; undo child 72  (late)
            event compensation_started it {"index": 2}
            undo execution 72; answer 1
            undo  it[2] child 72
        > action_completed it[2]!undo
            event compensation_completed it {"index": 2}
            event compensation_started it {"index": 0}
            undo execution 70; answer 1
        > action_completed it[0]!undo
            event compensation_completed it {"index": 0}
            event execution_failed "no"
        """,
    )


def test_each_completed_item_is_undone_if_the_iterator_fails() -> None:
    """Items that are leased are draining; no further item is started."""
    assert_story(
        ITEMS,
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 4}
            event iteration_started it {"index": 0}
            event iteration_started it {"index": 1}
            event iteration_started it {"index": 2}
            job   it[0] {"n": 10}
            job   it[1] {"n": 20}
            job   it[2] {"n": 30}
        > action_completed it[2] 7
            event iteration_completed it {"index": 2}
            event iteration_started it {"index": 3}
            job   it[3] {"n": 40}
            undo  it[2]
        > action_failed it[0] {"message": "no"}
            event iteration_failed it "no"
            event step_failed it "no"
            event execution_compensating "no"
            dead  it[0]
            dead  it
            cancel items of it
            cancel all work
            drain it
        > action_completed it[1] 5  (late)
            undo  it[1]
        > action_completed it[1] 5  (duplicate)
        > action_failed it[3] {"message": "cancelled", "type": "cancelled"}
            event compensation_started it {"index": 1}
            job   it[1]!undo {"of": "20 2 1 of 4: 5"}
        > action_completed it[1]!undo
            event compensation_completed it {"index": 1}
            event compensation_started it {"index": 2}
            job   it[2]!undo {"of": "30 3 2 of 4: 7"}
        > action_completed it[2]!undo
            event compensation_completed it {"index": 2}
            event execution_failed "no"
        """,
    )


def test_an_iterator_that_succeeded_is_undone_as_a_whole() -> None:
    """Its own `compensate` replaces those of its items."""
    assert_story(
        ITERATOR_WITH_COMPENSATE,
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 4}
            event iteration_started it {"index": 0}
            event iteration_started it {"index": 1}
            event iteration_started it {"index": 2}
            job   it[0] {"n": 10}
            job   it[1] {"n": 20}
            job   it[2] {"n": 30}
        > action_completed it[0] 10
            event iteration_completed it {"index": 0}
            event iteration_started it {"index": 3}
            job   it[3] {"n": 40}
            undo  it[0]
        > action_completed it[1] 11
            event iteration_completed it {"index": 1}
            undo  it[1]
        > action_failed it[2] {"message": "no"}
            event iteration_failed it "no"
            dead  it[2]
        > action_completed it[3] 13
            event iteration_completed it {"index": 3}
            post  iterator_completed it
            undo  it[3]
        > iterator_completed it [10, 11, null, 13]
            event step_completed it
            event step_started b
            job   b
            undo  it
        > action_failed b {"message": "no"}
            event step_failed b "no"
            event execution_compensating "no"
            event compensation_started it
            job   it!undo {"all": [10, 11, null, 13]}
            dead  b
            cancel all work
        > action_completed it!undo
            event compensation_completed it
            event execution_failed "no"
        """,
    )


def test_a_cancelled_iterator_is_drained_item_by_item() -> None:
    """A lost lease of an item is unknown."""
    assert_story(
        ITERATOR_WITH_COMPENSATE,
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 4}
            event iteration_started it {"index": 0}
            event iteration_started it {"index": 1}
            event iteration_started it {"index": 2}
            job   it[0] {"n": 10}
            job   it[1] {"n": 20}
            job   it[2] {"n": 30}
        > action_completed it[0] 10
            event iteration_completed it {"index": 0}
            event iteration_started it {"index": 3}
            job   it[3] {"n": 40}
            undo  it[0]
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain it
        > action_completed it[2] 12  (late)
            undo  it[2]
        > action_failed it[1] {"message": "lost", "type": "lost_lease"}
            undo  it[1] unknown
        > action_failed it[3] {"message": "cancelled", "type": "cancelled"}
            event compensation_started it {"index": 2}
            job   it[2]!undo {"of": "30 3 2 of 4: 12"}
        > action_completed it[2]!undo
            event compensation_completed it {"index": 2}
            event compensation_started it {"index": 0}
            job   it[0]!undo {"of": "10 1 0 of 4: 10"}
        > action_completed it[0]!undo
            event compensation_completed it {"index": 0}
            event execution_cancelled "cancelled"
        """,
    )


def test_an_item_that_times_out_is_unknown() -> None:
    """The iterator goes on."""
    assert_story(
        ITEMS_GO_ON,
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 4}
            event iteration_started it {"index": 0}
            event iteration_started it {"index": 1}
            event iteration_started it {"index": 2}
            job   it[0] {"n": 10}
            job   it[1] {"n": 20}
            job   it[2] {"n": 30}
        > action_failed it[0] {"message": "too late", "type": "timeout"}
            event iteration_failed it "too late"
            event iteration_started it {"index": 3}
            job   it[3] {"n": 40}
            dead  it[0]
            undo  it[0] unknown
        > action_completed it[1] 1
            event iteration_completed it {"index": 1}
            undo  it[1]
        > execution_cancel
            event execution_compensating "cancelled"
            cancel all work
            drain it
        > action_failed it[2] {"message": "cancelled", "type": "cancelled"}
        > action_failed it[3] {"message": "cancelled", "type": "cancelled"}
            event compensation_started it {"index": 1}
            job   it[1]!undo {"of": "20 2 1 of 4: 1"}
        > action_failed it[3] {"message": "cancelled", "type": "cancelled"}  (duplicate)
        > action_completed it[1]!undo
            event compensation_completed it {"index": 1}
            event execution_cancelled "cancelled"
        """,
    )


def test_the_undo_of_an_item_sees_the_result_of_its_child() -> None:
    """The child's answer is an execution_complete."""
    assert_story(
        """
        workflow:
        - {step: start, next: it}
        - step: it
          type: iterator
          collection: [1, 2]
          element: item
          task: {type: playbook, path: sub, compensate: {type: http, args: {id: "{{ result.id }}"}}}
        """,
        """
        > execution_start
            event step_started it
            event iterator_started it {"total": 2}
            event iteration_started it {"index": 0}
            child it[0] sub
        > execution_complete it[0] {"id": "c1"}
            event iteration_completed it {"index": 0}
            event iteration_started it {"index": 1}
            child it[1] sub
            undo  it[0]
        > execution_failed it[1] {"message": "no"}
            event iteration_failed it "no"
            event step_failed it "no"
            event execution_compensating "no"
            event compensation_started it {"index": 0}
            job   it[0]!undo {"id": "c1"}
            dead  it
            cancel items of it
            cancel all work
        """,
    )


def test_a_child_that_failed_because_a_step_of_it_timed_out_is_not_unknown() -> None:
    """Its own undo has dealt with that; its error keeps the type of the cause."""
    assert_story(
        CHILD_WITH_COMPENSATE,
        """
        > execution_start
            event step_started p
            event step_started z
            job   z
            child p sub
        > action_failed p {"message": "slow", "type": "timeout", "child_execution_id": 7}
            event step_failed p "slow"
            event execution_failed "slow"
            dead  p
            cancel items of p
            cancel all work
        """,
    )
