"""Tries an installed compiled wheel without a database: cibuildwheel and tests run this file in its environment."""

from __future__ import annotations

from noetl_broker.broker import core
from noetl_broker.compiled_form import installed_form
from noetl_broker.resources import playbooks_folder
from noetl_broker.testing import simulate

HANDLED = {"booked": 123, "handled": "automatically"}


def main() -> None:
    """Simulate an example. Raises AssertionError if it ends otherwise, or in the plain form."""
    assert installed_form() == "compiled", core.__file__
    assert str(core.__file__).endswith(".so"), core.__file__
    answers = {"assess": {"amount": 120, "vip": False}, "automatic": {"handled": "automatically"}, "book": HANDLED}
    story = simulate(playbooks_folder() / "diamond.yaml", answers)
    assert (story.status, story.result) == ("COMPLETED", HANDLED), story
    print(f"{core.__file__} simulated {story.status}")


if __name__ == "__main__":
    main()
