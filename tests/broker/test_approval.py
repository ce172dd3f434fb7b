"""Approvals: a step that waits until a person decides."""

from tests.stories import assert_story, dedented

ORDER = """
workload: {order_id: 7, total: 120}
workflow:
- {step: start, next: approve}
- step: approve
  type: approval
  title: "Order {{ order_id }}: {{ total }} €"
  details: {total: "{{ total }}"}
  form: {discount: {type: number, maximum: 30, default: 0}}
  approvers: [finance]
  timeout: 24h
  next:
  - {when: "{{ approve.approved }}", step: ship, args: {discount: "{{ approve.discount }}", by: "{{ result.by }}"}}
  - {else: [{step: refuse}]}
- {step: ship, type: python, code: x}
- {step: refuse, type: python, code: x}
"""
BEGUN = """
> execution_start
    event step_started approve
    wait  approve approval {"title": "Order 7: 120 €", "details": {"total": 120}, "form": {"discount": {"type": "number", "maximum": 30, "default": 0}}, "approvers": ["finance"]}
    timer approve timeout 2026-01-02T00:00:01.000000Z
"""  # noqa: E501 - lines of a story


def test_a_decision_completes_the_approval() -> None:
    """Its result is the decision with the fields of the form; a doubled decision and a late timer change nothing."""
    assert_story(
        ORDER,
        BEGUN
        + dedented("""
        > approval_decided approve {"approved": true, "by": "ann", "at": "2026-01-01T09:00:00.000000Z", "form": {"discount": 5}}
            event step_completed approve {"comment": null, "discount": 5, "approved": true, "by": "ann", "at": "2026-01-01T09:00:00.000000Z"}
            event step_started ship
            job   ship {"discount": 5, "by": "ann"}
        > approval_decided approve {"approved": false, "by": "bob", "at": "2026-01-01T09:00:01.000000Z"}  (duplicate)
        > timer_due approve {"purpose": "timeout"}  (duplicate)
        > action_completed ship 1
            event step_completed ship
            event execution_complete 1
        """),  # noqa: E501 - lines of a story
    )


def test_a_rejection_takes_the_other_way() -> None:
    """It is a result, no failure."""
    assert_story(
        ORDER,
        BEGUN
        + dedented("""
        > approval_decided approve {"approved": false, "by": "bob", "at": "2026-01-01T09:00:00.000000Z", "form": {"comment": "too much"}}
            event step_completed approve {"comment": "too much", "approved": false, "by": "bob", "at": "2026-01-01T09:00:00.000000Z"}
            event step_started refuse
            job   refuse
        """),  # noqa: E501 - lines of a story
    )


def test_an_approval_that_nobody_decided_fails() -> None:
    """A decision after its timeout finds no open visit."""
    assert_story(
        ORDER,
        BEGUN
        + dedented("""
        > timer_due approve {"purpose": "timeout", "due_at": "2026-01-02T00:00:01.000000Z"}
            event step_failed approve "nobody decided in time"
            event execution_failed "nobody decided in time"
            cancel all work
        > approval_decided approve {"approved": true, "by": "ann"}  (after_end)
        """),
    )


def test_an_event_that_decides_nothing_is_recorded() -> None:
    """One without a boolean `approved`; and one for a wait that is no approval."""
    assert_story(
        """
        workflow:
        - {step: start, next: [approve, cool]}
        - {step: approve, type: approval}
        - {step: cool, type: wait, for: 1d}
        """,
        """
        > execution_start
            event step_started approve
            event step_started cool
            wait  approve approval {"title": "approve"}
            wait  cool timer
            timer cool wait 2026-01-02T00:00:01.000000Z
        > approval_decided approve {"approved": "yes"}  (recorded)
        > approval_decided approve  (recorded)
        > approval_decided cool {"approved": true}  (recorded)
        > approval_decided other {"approved": true}  (unknown_step)
        """,
    )


def test_a_form_may_have_templates() -> None:
    """It is checked when the approval begins."""
    body = """
    workload: {most: 30}
    workflow:
    - {step: start, next: approve}
    - {step: approve, type: approval, form: {discount: {type: number, maximum: "{{ most }}"}}}
    """
    assert_story(
        body,
        """
        > execution_start
            event step_started approve
            wait  approve approval {"title": "approve", "form": {"discount": {"type": "number", "maximum": 30}}}
        """,
    )
    message = '"`form` is no form: `maximum` is a string (write a number, without quotes)"'
    assert_story(
        body,
        f"""
        > execution_start {{"most": "many"}}
            event step_started approve
            event step_failed approve {message}
            event execution_failed {message}
            cancel all work
        """,
    )


def test_a_wrong_timeout_fails_the_step() -> None:
    """The error names the value and the forms; no timer is left."""
    forms = "a number of seconds, 90s, 15m, 2h30m, 3d, 2w or P3DT12H"
    message = f'"`timeout` must be {forms}, it is \\"soon\\""'
    assert_story(
        """
        workload: {limit: soon}
        workflow:
        - {step: start, next: approve}
        - {step: approve, type: approval, timeout: "{{ limit }}"}
        """,
        f"""
        > execution_start
            event step_started approve
            event step_failed approve {message}
            event execution_failed {message}
            cancel all work
        """,
    )
