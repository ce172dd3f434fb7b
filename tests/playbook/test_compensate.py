"""`compensate`: where it may stand, what its templates see, and what it may be."""

from __future__ import annotations

import pytest

from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.playbook.lint.lint import check
from tests.stories import document

CHARGE = "- {step: start, next: charge}\n- {step: charge, type: http, url: x, data: {order: 7}, compensate: %s}"


def findings(workflow: str) -> list[str]:
    """Return what `validate` says of a workflow."""
    lines = "".join(f"\n  {line}" for line in workflow.splitlines())
    return [one.message for one in check(document(f"workflow:{lines}"), file="x", rules=PlaybookRules())]


@pytest.mark.parametrize(
    "compensate, expected",
    [
        ('{type: http, url: "{{ result.id }}/{{ order }}/{{ error.message }}", retry: 3, timeout: 30s}', []),
        ('{type: playbook, path: refund, args: {id: "{{ result.id }}"}}', []),
        ("5", ["the `compensate` of `charge` is a number"]),
        ("{url: x}", ["the `compensate` of `charge` has no type"]),
        ("{type: wait, for: 3}", ["the `compensate` of `charge` is a step of type `wait`"]),
        ("{type: http, url: x, next: end}", ["`next` in the `compensate` of `charge` is not read"]),
        ("{type: playbook, workflow: []}", ["the `compensate` of `charge` has a `workflow`"]),
        (
            '{type: http, url: "{{ charge.id }}"}',
            ["the `compensate` of `charge` reads the result of the step `charge`"],
        ),
    ],
)
def test_a_compensate_is_one_action_or_one_playbook(compensate: str, expected: list[str]) -> None:
    """Its templates see the inputs of the visit, `result` and `error`."""
    assert findings(CHARGE % compensate) == expected


@pytest.mark.parametrize("step", ["type: wait, for: 3", "type: approval", "type: signal, signal: x", "type: router"])
def test_a_step_that_does_nothing_outside_has_no_compensate(step: str) -> None:
    """It is an error that names the step and its type."""
    kind = step.split(",", maxsplit=1)[0].removeprefix("type: ")
    assert findings(f"- {{step: start, next: it}}\n- {{step: it, {step}, compensate: {{type: http, url: x}}}}") == [
        f"the step `it` of type `{kind}` has a `compensate`, and does nothing to be undone"
    ]


def test_an_item_has_a_compensate_in_the_task() -> None:
    """Its templates see the element; the broker runs such an iterator itself."""
    assert (
        findings(
            "- {step: start, next: it}\n"
            "- {step: it, type: iterator, collection: [1], element: item,\n"
            '   task: {type: http, url: x, compensate: {type: http, url: "{{ item }}{{ _loop.index }}{{ result }}"}}}'
        )
        == []
    )


def test_no_step_name_ends_like_the_node_of_an_undo() -> None:
    """`charge!undo` is the name of the job that undoes `charge`."""
    assert findings('- {step: start, next: "a!undo"}\n- {step: "a!undo", type: http, url: x}') == [
        "the step name 'a!undo' ends in '!undo'"
    ]
