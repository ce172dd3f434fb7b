"""The configurations of docs/how-to/reverse-proxy.md run in a real nginx, over TLS, before a real console."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.brokers import PATIENCE_SECONDS, drain, register, start
from tests.cli.conftest import read_until
from tests.console.conftest import console
from tests.console.test_access import token
from tests.console.test_pages import FIELD
from tests.console.test_trusted_header import ME, NAME, trusted
from tests.daemon.processes.test_health_port import free_port
from tests.docs.pages import code_blocks, read_page
from tests.postgres import Database
from tests.processes import Process

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed here (apt-get install nginx-light)"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed here"),
]
BY_TOKEN, BY_NAME = code_blocks(read_page("reverse-proxy"), "nginx")
AROUND = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
    server {{ # answers as oauth2-proxy does; its session is a cookie
        listen 127.0.0.1:{session_port};
        location = /oauth2/auth {{
            if ($cookie_person = "") {{ return 401; }}
            add_header X-Auth-Request-Email $cookie_person always;
            return 202;
        }}
        location /oauth2/ {{ return 200 "who are you?"; }}
    }}
}}
"""
CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    " -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
)
STORY = "workflow: [{step: start, next: end}, {step: end}]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a certificate of this machine."""
    subprocess.run(CERTIFICATE.split(), cwd=tmp_path, check=True, capture_output=True, timeout=PATIENCE_SECONDS)
    return tmp_path


@asynccontextmanager
async def proxied(client: httpx.AsyncClient, folder: Path, server: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run nginx before the console of a client; yield a client of nginx."""
    assert NGINX is not None
    port, session_port = free_port(), free_port()
    for old, new in (
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("/etc/ssl/certs/noetl.pem", f"{folder}/cert.pem"),
        ("/etc/ssl/private/noetl.key", f"{folder}/key.pem"),
        ("http://127.0.0.1:8080", str(client.base_url).rstrip("/")),
        ("127.0.0.1:4180", f"127.0.0.1:{session_port}"),
    ):
        server = server.replace(old, new)
    file = folder / "nginx.conf"
    file.write_text(AROUND.format(folder=folder, server=server, session_port=session_port), encoding="utf-8")
    process = Process([NGINX, "-p", str(folder), "-c", str(file)], stderr=subprocess.PIPE, text=True)
    try:
        await asyncio.to_thread(read_until, process, " nginx/")  # it listens
        trusting = ssl.create_default_context(cafile=str(folder / "cert.pem"))
        url = f"https://localhost:{port}"
        async with httpx.AsyncClient(base_url=url, verify=trusting, trust_env=False, timeout=PATIENCE_SECONDS) as found:
            yield found
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_SECONDS)


async def test_a_token_signs_in_over_tls_and_a_stream_is_not_held_back(database: Database, folder: Path) -> None:
    """The cookie is for https alone. Nobody names himself, though the console believes this proxy."""
    await register(database, STORY)
    [one] = await start(database)
    secret = (await token(database, "operator"))["Authorization"].removeprefix("Bearer ")
    async with (
        console(database, trusted_header=trusted("127.0.0.1")) as direct,
        proxied(direct, folder, BY_TOKEN) as client,
    ):
        assert (await client.get(ME, headers={NAME: "ann"})).status_code == 401
        [csrf] = FIELD.findall((await client.get("/sign-in")).text)
        own = {"Origin": str(client.base_url).rstrip("/")}
        entered = await client.post(
            "/sign-in", data={"token": secret, "csrf": csrf, "next": "/executions"}, headers=own
        )
        assert ("Secure" in entered.headers["set-cookie"], entered.headers["location"]) == (True, "/executions")
        assert (await client.get(ME)).json() == {"role": "operator", "name": "operator"}
        async with client.stream("GET", f"/api/v1/changes?execution_id={one}") as stream:
            lines = stream.aiter_lines()
            running = await anext(line async for line in lines if "RUNNING" in line)
            await drain(database)
            completed = await anext(line async for line in lines if "COMPLETED" in line)
        assert [str(one) in line for line in (running, completed)] == [True, True]


async def test_people_sign_in_at_another_program_and_act_by_name(database: Database, folder: Path) -> None:
    """Without a session, nginx leads to it. A name that a client sends is replaced."""
    await register(database, STORY)
    head, _, _ = BY_TOKEN.partition("    location /")
    async with (
        console(database, trusted_header=trusted("127.0.0.1")) as direct,
        proxied(direct, folder, f"{head}{BY_NAME}}}") as client,
    ):
        away = await client.get("/executions", headers={NAME: "ann"}, follow_redirects=True)
        assert (away.url.path, away.text) == ("/oauth2/sign_in", "who are you?")
        found = [
            (await client.get(ME, headers={"Cookie": f"person={who}", NAME: "ann"})).json() for who in ("bob", "ann")
        ]
        assert found == [{"role": "viewer", "name": "bob"}, {"role": "operator", "name": "ann"}]
        own = {"Cookie": "person=ann", "Origin": str(client.base_url).rstrip("/")}
        statuses = [
            (await client.post("/api/v1/playbooks/pause?path=story", headers={**own, **more})).status_code
            for more in ({"Origin": "https://evil.example"}, {})
        ]
        assert statuses == [403, 200]
