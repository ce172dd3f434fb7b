"""Signing in with a token, and out again: a cookie of the browser carries the token."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from noetl_broker.console.access import COOKIE, address_of
from noetl_broker.console.pages import failures
from noetl_broker.console.pages.rendering import environment
from noetl_broker.console.pages.screen import Screen, Submitted, own_address, set_cookie
from noetl_broker.console.problem import Refusal, refusal_of
from noetl_broker.console.services import services_of
from noetl_broker.errors import BrokerError

router = APIRouter()

SIGNED_OUT = "You have signed out. The token is still valid: noetl-broker token revoke NAME ends it."


@router.get("/sign-in")
async def show_sign_in(request: Request, next: str = "/") -> Response:  # noqa: A002 - its name in the address
    """The form for a token."""
    return Screen(request, None).render("sign_in.html", title="Sign in", next=own_address(next), fault=None)


@router.post("/sign-in")
async def sign_in(form: Submitted) -> Response:
    """Keep a valid token in a cookie, and go on to the page that was wanted."""
    return await _enter(form.screen, form.text("token").strip(), own_address(form.text("next")))


async def _enter(screen: Screen, token: str, wanted: str) -> Response:
    try:
        await services_of(screen.request).sign_in.check(token, address_of(screen.request))
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


@router.post("/sign-out")
async def sign_out(form: Submitted) -> Response:
    """Forget the token."""
    response = form.done("/sign-in", SIGNED_OUT, kind="info")
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


def sign_in_by_address(app: ASGIApp) -> ASGIApp:
    """Signs in who opens `/?token=…`, and goes on to the first page without the token."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        token = request.query_params.get("token")
        if request.method != "GET" or request.url.path != "/" or token is None:
            return await app(scope, receive, send)
        try:
            answer = await _enter(Screen(request, None), token, "/")
        except BrokerError as fault:  # the database is away
            answer = await failures.answer_page(request, refusal_of(request, fault))
        return await answer(scope, receive, send)

    return serve


def open_again(app: ASGIApp) -> ASGIApp:
    """Answers who follows a link of another site with a page that opens the link again.

    A browser withholds our cookies from such a link. Without this, a link of a colleague would ask for the token again.
    The forms of other tabs would get a new secret.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        headers = request.headers
        is_link = headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-dest") == "document"
        if request.method != "GET" or not is_link:
            return await app(scope, receive, send)
        address = own_address(Screen(request, None).here())
        page = environment().get_template("arrival.html").render(address=address)
        return await HTMLResponse(page)(scope, receive, send)

    return serve
