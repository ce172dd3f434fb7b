"""The http tool over TLS: whom it trusts, and that connections are kept."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.worker.conftest import Perform, failed
from tests.worker.servers import listening
from tests.worker.tools.test_kept_http import KeepingSite, data

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture
async def certificate(tmp_path: Path) -> Path:
    """Make a certificate for 127.0.0.1, signed by itself, in a file with `.crt`; its key is in one with `.key`."""
    made = tmp_path / "own"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=own -keyout {made}.key -out {made}.crt"
    process = await asyncio.create_subprocess_exec(
        *command.split(), "-addext", "subjectAltName=IP:127.0.0.1", stderr=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0
    return made


@pytest.fixture
async def site(certificate: Path) -> AsyncIterator[KeepingSite]:
    """Run a server that keeps connections."""
    own, context = KeepingSite(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(f"{certificate}.crt", f"{certificate}.key")
    async with listening(own.serve, tls=context) as port:
        own.url = f"https://127.0.0.1:{port}/"
        yield own


async def test_an_unknown_certificate_is_refused(perform: Perform, site: KeepingSite) -> None:
    """Also when a connection without that check is kept."""
    assert await data(perform, site, verify=False) == "1"
    outcome = await perform({"type": "http", "url": site.url})
    assert (failed(outcome)["type"], outcome.retryable) == ("connection", True)
    assert "certificate" in failed(outcome)["message"]


async def test_connections_over_tls_are_kept(
    perform: Perform, site: KeepingSite, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment may name the trusted certificates."""
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    assert [await data(perform, site), await data(perform, site)] == ["1", "2"]
    assert site.connections == [1, 1]


async def test_a_tls_connection_that_the_server_closed_is_replaced(perform: Perform, site: KeepingSite) -> None:
    """Before a request is sent."""
    await data(perform, site, verify=False)
    site.close_all()
    assert await site.next_end() == 1
    assert (await data(perform, site, verify=False), site.connections) == ("2", [1, 2])
