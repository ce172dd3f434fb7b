"""The console's pages: HTML rendered on the server, one module a page.

How a page is added:

1. A module here with `router = APIRouter()`. Its routes take `screen: Shown` (who is signed in), `screen: Acting` (an
   operator) or `form: Posted` (an operator's form: role, origin and CSRF token are checked). They call the service.
   `screen.ask(service.show_thing, **screen.asked("name"))` gives the answer of an action to a parameter of the address.
   `screen.rows(service.list_things, "path")` gives a page of a list, as the caller may see it. `form.ask` sends the
   fields of the form. The action's model has their bounds.
   They return `screen.render("thing.html", title="Thing", …)`, or `form.done("/things", "3 things are paused")`: a
   redirect to a page that shows the sentence. `screen.form` shows a form, with what is wrong at its fields. Other
   errors are raised as in the API; `failures` makes pages of them.
2. A name in ROUTERS below, and for the navigation a row of SECTIONS.
3. A template in `console/templates/` that extends `layout.html`. It fills the blocks `content`, `heading`, `actions`
   (beside the heading) and `above` (the way to it: `m.crumbs`).

Rules:

- What only an operator may see goes through the API's model: `screen.seen(Execution, row)` gives the row as a mapping,
  in which a viewer's payloads are None. A form stands under `{% if may_act %}`.
- Every text is escaped, and invisible characters are made visible. A form's field must send back what it got:
  `value="{{ path | exact }}"`. Never use `|safe`; a picture is `{{ picture(svg) }}`, its style is in the stylesheet.
- The content security policy allows no inline script and no `style="…"`. A length that is data is an SVG attribute or a
  `<progress>`.
- Every state has a URL. `link("/executions", status="FAILED")` builds one; `here(cursor=None)` is the page's own with
  other parameters. Executions stand at `/executions/ID`, playbooks at `/playbooks?path=…&version=…`.
- Many executions are acted on at `GET /executions/act?action=retry&id=…&id=…` or, for all that match,
  `&scope=all&path=…&status=…` with the filters of the list. It shows a preview; the form in it acts by POST.

Macros are in `templates/macros.html`; `layout.html` imports them as `m`, and blocks can use it. Rows of a table become
cards on a phone. `{% call m.form(url) %}` has the CSRF token.

Live: pass `changes="all"` or an id to `render`. When something changes, the script requests the same URL again. It
updates each element with `data-live` and an id; what a person typed, chose or opened stays. Callers of one role share
these answers (`live`). So a page may show only the role and the name of its caller, and the token of its forms. The
name stands in an element with `data-who`: the script puts it in.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from fastapi import FastAPI

from noetl_broker.console.pages import (
    approvals,
    assets,
    bulk,
    charts,
    execution,
    execution_actions,
    executions,
    failures,
    health,
    limits,
    live,
    overview,
    playbooks,
    schedules,
    sign_in,
    signals,
)
from noetl_broker.console.pages.attention import Examinations
from noetl_broker.console.pages.headers import HEADERS, add_headers
from noetl_broker.console.problem import add_handlers
from noetl_broker.console.services import Services
from noetl_broker.service.action import Caller
from noetl_broker.service.models.base import Role
from noetl_broker.service.replays import Replays


class Section(NamedTuple):
    """A part of the console in its navigation."""

    title: str
    url: str
    icon: str

    def is_at(self, path: str) -> bool:
        """Whether a page with this path belongs to the section."""
        return path == self.url or (self.url != "/" and path.startswith(f"{self.url}/"))

    def is_for(self, caller: Caller | None) -> bool:
        """Whether the caller may see it; who has not signed in sees its title."""
        return (
            caller is None
            or caller.role.may({Role.VIEWER})
            or (self.url == "/approvals" and caller.role is Role.APPROVER)
        )


SECTIONS: Final = (
    Section("Overview", "/", "overview"),
    Section("Executions", "/executions", "executions"),
    Section("Playbooks", "/playbooks", "playbooks"),
    Section("Approvals", "/approvals", "approvals"),
    Section("Schedules", "/schedules", "schedules"),
    Section("Signals", "/signals", "signal"),
    Section("Limits", "/limits", "limits"),
    Section("Workers", "/workers", "workers"),
    Section("Dead letters", "/dead-letters", "letters"),
    Section("Health", "/health", "health"),
)
# Of two routes that fit, the first one answers.
ROUTERS: Final = tuple(
    page.router
    for page in (
        *(overview, bulk, executions, playbooks, execution, execution_actions, approvals, schedules),
        *(signals, limits, health, sign_in, assets, charts),
    )
)


def create_pages(services: Services) -> FastAPI:
    """The application of the pages, to be mounted beside the API."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.services = services
    app.state.replays = Replays()
    app.state.examinations = Examinations(services.options.database)
    app.state.sections = SECTIONS
    add_handlers(app, failures.answer_page)
    app.add_middleware(live.LiveAnswers)
    if services.options.signs_in_by_address:
        app.add_middleware(sign_in.sign_in_by_address)
    app.add_middleware(sign_in.open_again)
    app.add_middleware(add_headers, headers=HEADERS)
    for router in ROUTERS:
        app.include_router(router)
    return app
