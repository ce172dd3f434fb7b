"""An edited playbook: what lint finds, and what recorded executions would do on it, before anybody registers it."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Response

from noetl_broker.console.access import Operator
from noetl_broker.console.pages.opened_playbook import WhichPlaybook, named_in, open_playbook, show_part
from noetl_broker.console.pages.screen import Posted, Shown
from noetl_broker.console.services import LongWork, Pooled, Rules
from noetl_broker.errors import OperatorFault
from noetl_broker.service.back_tests import FILE, back_test, check_text
from noetl_broker.service.check import CheckedFile
from noetl_broker.service.models.playbooks import LONGEST_SOURCE
from noetl_broker.service.source_lines import lines_with_findings
from noetl_broker.store.admin.executions import Filter
from noetl_broker.store.connect.connection import Connection

router = APIRouter()

COMPARED: Final = (20, 100, 500, 1000)  # executions of a back-test, to choose from
USUAL: Final = 100
GROUPS: Final = 100  # of divergences that the page lists


@router.get("/playbooks/edit")
async def show_editor(screen: Shown, _caller: Operator, connections: Pooled, named: WhichPlaybook) -> Response:
    """The text of a version, to be edited."""
    async with connections.borrow() as connection:
        opened = await open_playbook(screen, connection, named)
    return show_part(
        screen,
        opened,
        "edit",
        content=opened.of.content,
        limits=COMPARED,
        limit=USUAL,
        ways_only=False,
        checked=None,
        result=None,
    )


@router.post("/playbooks/edit")
async def check(form: Posted, connections: Pooled, work: LongWork, rules: Rules) -> Response:
    """Check the text and compare executions with it, or give it back as a file. Registers nothing."""
    content = form.text("content")
    if len(content) > LONGEST_SOURCE:
        raise OperatorFault(f"the text has {len(content):,} characters; a playbook may have {LONGEST_SOURCE:,}")
    if form.text("do") == "download":
        headers = {"Content-Disposition": f'attachment; filename="{FILE}"'}
        return Response(content.encode(errors="replace"), media_type="application/yaml", headers=headers)
    limit = next((each for each in COMPARED if str(each) == form.text("limit")), USUAL)
    ways_only = form.text("ways_only") == "1"
    async with connections.borrow() as connection:
        opened = await open_playbook(form.screen, connection, named_in(form))
    which = Filter(path=opened.of.path)

    async def compare(connection: Connection) -> tuple[CheckedFile, dict[str, Any] | None]:
        checked = await check_text(connection, content, rules)
        if checked.errors:
            return checked, None
        compared = await back_test(connection, checked, which, rules, limit=limit, ways_only=ways_only)
        return checked, compared.as_document()

    checked, result = await work.run(compare)
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
