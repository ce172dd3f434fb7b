"""Links from elsewhere: a browser withholds our cookies from them, so the page is opened once more from here."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from noetl_broker.console.pages.rendering import environment
from noetl_broker.console.pages.screen import own_address


class FromElsewhere:
    """Answers who follows a link of another site with a page that opens the link again, now with the cookies.

    Without it, a link of a colleague would ask for the token again. The forms of other tabs would get a new secret.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope)
        headers = request.headers
        if (
            request.method == "GET"
            and headers.get("sec-fetch-site") == "cross-site"
            and headers.get("sec-fetch-dest") == "document"
        ):
            address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            page = environment().get_template("arrival.html").render(address=own_address(address))
            await HTMLResponse(page)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
