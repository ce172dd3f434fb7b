"""The common parts of all pages: the caller, the tokens of forms, the rendering, the message after an action."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import parse_qs

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from markupsafe import Markup
from pydantic import BaseModel

from noetl_broker.console import access
from noetl_broker.console.access import SignedIn
from noetl_broker.console.api.route import perform
from noetl_broker.console.pages import cookies
from noetl_broker.console.pages.attention import count_for_navigation
from noetl_broker.console.pages.cookies import Kind
from noetl_broker.console.pages.rendering import environment, link
from noetl_broker.console.problem import Refusal
from noetl_broker.console.services import services_of
from noetl_broker.errors import BrokerError, DatabaseFault
from noetl_broker.service.action import Caller, ServiceAction
from noetl_broker.service.field_errors import FieldFault
from noetl_broker.service.models.base import LONGEST_TEXT, Role
from noetl_broker.service.typed_values import written_request

MOST_FIELDS: Final = 5_000
FORM_TYPE: Final = "application/x-www-form-urlencoded"
EXACT: Final = frozenset({"name", "key", "worker_id"})  # parameters of addresses, in which spaces count
SHARED: Final = "noetl_broker.shared"  # in the scope of a request whose answer others get too


class Screen:
    """One request for a page. `caller` is None if nobody has signed in yet."""

    def __init__(self, request: Request, caller: Caller | None) -> None:
        self.request = request
        self._unanswered: dict[str, None] = {}  # buckets of the installation
        self._is_shared = SHARED in request.scope
        self.caller = replace(caller, name="") if caller is not None and self._is_shared else caller
        secret = request.cookies.get(cookies.FORM, "")
        self._is_new = not cookies.is_secret(secret)
        self._secret = cookies.new_secret() if self._is_new else secret

    @property
    def may_act(self) -> bool:
        """Whether the caller may do what operators may."""
        return self.may(Role.OPERATOR)

    def may(self, role: str) -> bool:
        """Whether the caller may do what this role may."""
        return self.caller is not None and self.caller.role.may({Role(role)})

    @property
    def asker(self) -> Caller:
        """The caller of a page that is for who has signed in."""
        assert self.caller is not None  # noqa: S101 - `Shown` has checked it
        return self.caller

    @property
    def session(self) -> str | None:
        """The token in the cookie of the session."""
        return self.request.cookies.get(access.COOKIE)

    async def ask(self, action: ServiceAction[Any, Any], /, **given: Any) -> Any:
        """The answer of the service; an empty text is not given. Raises FieldFault."""
        answer = await perform(services_of(self.request), action, self.asker, written_request(action.request, given))
        if isinstance(answer, dict):
            self._unanswered |= dict.fromkeys(answer.get("unanswered", ()))
        return answer

    def asked(self, *names: str) -> dict[str, str]:
        """The values of these parameters of the address; an empty text for one that is not there. Raises FieldFault."""
        query = {name: self.request.query_params.get(name, "") for name in names}
        if long := [name for name, text in query.items() if len(text) > LONGEST_TEXT]:
            raise FieldFault({long[0]: f"it must have at most {LONGEST_TEXT:,} characters"})
        return {name: text if name in EXACT else text.strip() for name, text in query.items()}

    async def rows(self, action: ServiceAction[Any, Any], /, *filters: str, **given: Any) -> dict[str, Any]:
        """The page of a list that the address asks for, with its rows as this caller may see them."""
        found = await self.ask(action, **{**self.asked("cursor", "limit", *filters), **given})
        return {**found, "items": action.answer.model_validate(found).model_dump()["items"]}

    def form(
        self, template: str, title: str, fields: Mapping[str, Any], fault: BrokerError | None = None, **values: Any
    ) -> HTMLResponse:
        """The page of a form with the texts of its fields, and with what is wrong. Raises DatabaseFault."""
        if isinstance(fault, DatabaseFault):
            raise fault
        errors = fault.errors if isinstance(fault, FieldFault) and fault.errors.keys() <= fields.keys() else {}
        return self.render(
            template,
            title=title,
            status=HTTPStatus.OK if fault is None else HTTPStatus.BAD_REQUEST,
            fields=fields,
            errors=errors,
            fault=None if errors or fault is None else str(fault),
            **values,
        )

    def seen(self, model: type[BaseModel], row: Mapping[str, Any]) -> dict[str, Any]:
        """A row as the API's model shows it to this caller: a viewer's payloads are None."""
        return model.model_validate(row).model_dump()

    def render(
        self,
        template: str,
        *,
        title: str,
        status: HTTPStatus = HTTPStatus.OK,
        changes: str | None = None,
        **values: Any,
    ) -> HTMLResponse:
        """The page. `changes`: whose changes make it ask again, `all` or an id; only viewers hear."""
        shown = None if self._is_shared else cookies.read_flash(self.request.cookies.get(cookies.FLASH, ""))
        context = {
            "title": title,
            "changes": changes if self.may(Role.VIEWER) else None,
            "who": self.caller,
            "may_act": self.may_act,
            "may": self.may,
            "signed_in": self.session is not None,
            "counts": getattr(self.request.state, "counts", {}),
            "sections": self.request.app.state.sections,
            "path": self.request.url.path,
            "query": self.request.query_params,
            "csrf_field": cookies.TOKEN_FIELD,
            "csrf_token": "" if self._is_shared else cookies.token_of(self._secret, self.session),
            "flash": shown,
            "unanswered": [*self._unanswered],
            "now": datetime.now(UTC),
            "here": self.here,
            "picture": picture,
        }
        text = environment().get_template(template).render(context | values)
        response = HTMLResponse(text, status_code=status)
        if self._is_new:
            set_cookie(self.request, response, cookies.FORM, self._secret)
        if shown is not None:
            response.delete_cookie(cookies.FLASH, path="/", httponly=True, samesite="strict")
        return response

    def here(self, **changes: Any) -> str:
        """The address of this page with other parameters; None takes one out."""
        query = self.request.query_params
        return link(self.request.url.path, **{**{name: query.getlist(name) for name in query}, **changes})


class SentForm:
    """The fields of a form of ours that was sent."""

    def __init__(self, screen: Screen, fields: Mapping[str, list[str]]) -> None:
        self.screen = screen
        self._fields = fields

    def text(self, name: str, default: str = "") -> str:
        """The value of a field; lines end as in Unix."""
        return self._fields.get(name, [default])[0].replace("\r\n", "\n")

    def all(self, name: str) -> list[str]:
        """All values of a field."""
        return self._fields.get(name, [])

    @staticmethod
    def once(key: str, *texts: str) -> str | None:
        """The idempotency key of a form with a key of its own: it does one thing, however often it is sent."""
        digest = hashlib.sha256("\0".join(texts).encode(errors="replace")).hexdigest()
        return f"console {key[:64]} {digest[:16]}" if key else None

    def texts(self, *names: str) -> dict[str, str]:
        """The values of fields, without the spaces around them."""
        return {name: self.text(name).strip() for name in names}

    async def ask(self, action: ServiceAction[Any, Any], /, **given: Any) -> Any:
        """The answer of the service to the fields of the form, and to what is given instead. Raises FieldFault."""
        names = [name for name in action.request.model_fields if name in self._fields]
        return await self.screen.ask(action, **{**self.texts(*names), **given})

    def done(self, url: str, message: str, *, kind: Kind = "ok") -> Response:
        """A redirect to a page of ours, which shows the message once."""
        response = RedirectResponse(own_address(url), status_code=HTTPStatus.SEE_OTHER)
        said = cookies.written_flash(kind, message)
        set_cookie(self.screen.request, response, cookies.FLASH, said, seconds=cookies.FLASH_SECONDS)
        return response


def own_address(url: str) -> str:
    """The address if it belongs to this console, else the address of the first page."""
    is_own = url.startswith("/") and not url.startswith(("//", "/\\")) and url.isprintable()
    return url if is_own else "/"


def set_cookie(request: Request, response: Response, name: str, value: str, *, seconds: int | None = None) -> None:
    """Set a cookie that scripts and other sites do not get; over https alone where the page came so."""
    is_https = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
    response.set_cookie(name, value, max_age=seconds, path="/", httponly=True, samesite="strict", secure=is_https)


def picture(svg: str) -> Markup:
    """Give a picture of `diagram/` for a page, without its style: the policy forbids it, the stylesheet has it."""
    before, _, rest = svg.partition("<style>")
    return Markup(before + rest.partition("</style>")[2] if rest else svg)  # noqa: S704 - the renderer escapes its texts


async def _shown(request: Request, caller: SignedIn) -> Screen:
    counts = await count_for_navigation(services_of(request))
    request.state.counts = {**counts, **request.app.state.examinations.counts()}
    return Screen(request, caller)


def _page_for(role: Role) -> Callable[[Screen], Awaitable[Screen]]:
    async def page(screen: Shown) -> Screen:
        screen.asker.require({role})
        return screen

    return page


def _form_for(role: Role) -> Callable[[Screen], Awaitable[SentForm]]:
    async def form(screen: Shown) -> SentForm:
        screen.asker.require({role})
        return await read_form(screen)

    return form


async def read_form(screen: Screen) -> SentForm:
    """The form of a request. Raises Refusal (415, 400, 403) where it is not a form that this browser got from us."""
    request = screen.request
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"a form is sent as {FORM_TYPE}")
    try:
        body = (await request.body()).decode("ascii")
        read = partial(parse_qs, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
        fields = await asyncio.to_thread(read, body)  # a second for 8 MiB
    except ValueError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the form cannot be read: {error}") from error
    given = fields.pop(cookies.TOKEN_FIELD, [""])[0]
    if not cookies.fits(given, request.cookies.get(cookies.FORM, ""), screen.session):
        raise Refusal(
            HTTPStatus.FORBIDDEN, "the form is not of this session, or your browser sent no cookie; load its page again"
        )
    return SentForm(screen, fields)


async def _submitted(request: Request) -> SentForm:
    access.refuse_foreign_page(request)  # another port of this machine may have set our cookie
    return await read_form(Screen(request, None))


Shown = Annotated[Screen, Depends(_shown)]  # a page for who is signed in
Acting = Annotated[Screen, Depends(_page_for(Role.OPERATOR))]  # a page for an operator
Authoring = Annotated[Screen, Depends(_page_for(Role.AUTHOR))]
Producing = Annotated[Screen, Depends(_page_for(Role.PRODUCER))]
Posted = Annotated[SentForm, Depends(_form_for(Role.OPERATOR))]  # a form of an operator
Authored = Annotated[SentForm, Depends(_form_for(Role.AUTHOR))]
Decided = Annotated[SentForm, Depends(_form_for(Role.APPROVER))]
Produced = Annotated[SentForm, Depends(_form_for(Role.PRODUCER))]
Submitted = Annotated[SentForm, Depends(_submitted)]  # a form of anybody
