"""Signing in with a token, and out again: a cookie of the browser carries the token."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from noetl_broker.console.access import COOKIE
from noetl_broker.console.pages import failures
from noetl_broker.console.pages.screen import Anonymous, Screen, Submitted, own_address, set_cookie
from noetl_broker.console.problem import Refusal, refusal_of
from noetl_broker.console.services import services_of
from noetl_broker.errors import BrokerError

router = APIRouter()

SIGNED_OUT = "You have signed out. The token is still valid: noetl-broker token revoke NAME ends it."


@router.get("/sign-in")
async def show_sign_in(screen: Anonymous, next: str = "/") -> Response:  # noqa: A002 - its name in the address
    """The form for a token."""
    return screen.render("sign_in.html", title="Sign in", next=own_address(next), fault=None)


@router.post("/sign-in")
async def sign_in(form: Submitted) -> Response:
    """Keep a valid token in a cookie, and go on to the page that was wanted."""
    return await _enter(form.screen, form.text("token").strip(), own_address(form.text("next")))


async def _enter(screen: Screen, token: str, wanted: str) -> Response:
    try:
        await services_of(screen.request).sign_in.check(token, screen.address)
    except Refusal as refusal:
        response: Response = screen.render(
            "sign_in.html", title="Sign in", status=refusal.status, next=wanted, fault=refusal.detail
        )
        response.headers.update(refusal.headers or {})
        if refusal.status is HTTPStatus.UNAUTHORIZED:
            del response.headers["WWW-Authenticate"]  # a browser would ask for a password
        return response
    response = RedirectResponse(wanted, status_code=HTTPStatus.SEE_OTHER)
    set_cookie(screen.request, response, COOKIE, token)
    return response


class SignInByAddress:
    """Signs in who opens `/?token=…`, and goes on to the first page without the token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        token = request.query_params.get("token")
        if request.method != "GET" or request.url.path != "/" or token is None:
            await self._app(scope, receive, send)
            return
        try:
            answer = await _enter(Screen(request, None), token, "/")
        except BrokerError as fault:  # the database is away
            answer = await failures.answer_page(request, refusal_of(request, fault))
        await answer(scope, receive, send)


@router.post("/sign-out")
async def sign_out(form: Submitted) -> Response:
    """Forget the token."""
    response = form.done("/sign-in", SIGNED_OUT, kind="info")
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response
