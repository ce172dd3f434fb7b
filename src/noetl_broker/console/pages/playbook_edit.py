"""An edited playbook: what lint finds, and what recorded executions would do on it, before anybody registers it."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.opened_playbook import WhichPlaybook, named_in, open_playbook, show_part
from noetl_broker.console.pages.screen import Posted, Shown
from noetl_broker.playbook.source_lines import lines_with_findings
from noetl_broker.service import playbooks as service
from noetl_broker.service.back_tests import FILE

router = APIRouter()

COMPARED: Final = (20, 100, 500, 1000)  # executions of a back-test, to choose from
USUAL: Final = 100
GROUPS: Final = 100  # of divergences that the page lists


@router.get("/playbooks/edit")
async def show_editor(screen: Shown, _caller: Operator, named: WhichPlaybook) -> Response:
    """The text of a version, to be edited."""
    opened = await open_playbook(screen, named)
    shown = {"content": opened.of.content, "limits": COMPARED, "limit": USUAL, "ways_only": False, "checked": None}
    return show_part(screen, opened, "edit", **shown)


@router.post("/playbooks/edit")
async def check(form: Posted) -> Response:
    """Check the text and compare executions with it, or give it back as a file. Registers nothing."""
    content = form.text("content")
    if form.text("do") == "download":
        headers = {"Content-Disposition": f'attachment; filename="{FILE}"'}
        return Response(content.encode(errors="replace"), media_type="application/yaml", headers=headers)
    limit = next((each for each in COMPARED if str(each) == form.text("limit")), USUAL)
    ways_only = form.text("ways_only") == "1"
    opened = await open_playbook(form.screen, named_in(form))
    asked = {"content": content, "which": {"path": opened.of.path}, "limit": limit, "ways_only": ways_only}
    checked, result = await form.screen.ask(service.try_text, **asked)
    return show_part(
        form.screen,
        opened,
        "edit",
        content=content,
        limits=COMPARED,
        limit=limit,
        ways_only=ways_only,
        checked=checked,
        marked=[line for line in lines_with_findings(content, checked.findings) if line.findings],
        result=result,
        groups=GROUPS,
        is_changed=content != opened.of.content,
        file=FILE,
    )
