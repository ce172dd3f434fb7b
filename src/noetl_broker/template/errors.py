"""The error of a template, for the author of the playbook."""

from __future__ import annotations

from typing import Final

from noetl_broker.errors import PlaybookFault

EXCERPT_CHARACTERS: Final = 160


class TemplateError(PlaybookFault):
    """A template that does not compile or cannot be evaluated.

    `message` is the reason alone, `template` the whole source text, `at` its path in the playbook, such as
    `workflow[2].next[0].when`. `str(error)` is one sentence of all three. `undefined`: it read an undefined name.
    """

    def __init__(self, message: str, template: str, at: str, *, undefined: bool = False) -> None:
        """Keep the parts; the sentence shows at most 160 characters of the template."""
        self.message = message
        self.template = template
        self.at = at
        self.undefined = undefined
        shown = template if len(template) <= EXCERPT_CHARACTERS else template[:EXCERPT_CHARACTERS] + "…"
        super().__init__(f"{at}: {message}, in the template {shown!r}")
