"""The stacks for compose and Kubernetes: the program knows every command, variable and secret in them.

The stack for compose also runs without containers: the same commands, environments and order on a local Postgres.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import psycopg
import pytest
import yaml
from click.testing import CliRunner

from noetl_broker import __version__, embedded_postgres
from noetl_broker.cli.main import cli
from noetl_broker.embedded_postgres.binaries import find_bin_folder
from noetl_broker.settings import PREFIX, Settings
from tests.cli.conftest import NOWHERE, PATIENCE_SECONDS, plain_environment, read_until
from tests.console.conftest import console
from tests.daemon.processes.test_health_port import free_port
from tests.postgres import Database
from tests.processes import Process

FOLDER = Path(__file__).parents[2] / "deploy"
SERVICES: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]
KUBERNETES = FOLDER / "kubernetes"
KUBERNETES_VERSION = "1.37"


def objects_of(text: str) -> list[dict[str, Any]]:
    """Give the objects of Kubernetes in a YAML text."""
    return [*yaml.safe_load_all(text)]


# Without kustomize: the base changes nothing of its files.
OBJECTS = [
    one
    for name in objects_of((KUBERNETES / "base" / "kustomization.yaml").read_text(encoding="utf-8"))[0]["resources"]
    for one in objects_of((KUBERNETES / "base" / name).read_text(encoding="utf-8"))
]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "noetl-broker"}
PODS = {
    one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in OBJECTS if one["kind"] in {"Job", "Deployment"}
}
LOGINS = {  # each pod, and the login of the secret that it gets
    "noetl-broker-schema": "owner", "noetl-broker": "broker", "noetl-worker": "worker", "noetl-console": "console",
}  # fmt: skip
KNOWN = {PREFIX + name.upper() for name in Settings.model_fields} | {"PGHOST", "PGUSER", "PGPASSWORD", "PGDATABASE"}
PASSWORDS = {
    "OWNER_PASSWORD": "o'w\"n $er",
    "BROKER_PASSWORD": "b' r",
    "WORKER_PASSWORD": "w\\r",
    "CONSOLE_PASSWORD": "c=&",
}


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    """Give the environment that compose sets, with the variables of its .env file."""
    return {
        name: re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: PASSWORDS[found[1]], value)
        for name, value in service.get("environment", {}).items()
    }


@pytest.mark.parametrize("name", OURS)
def test_each_service_uses_known_commands_and_settings(name: str) -> None:
    """Its command, options and variables. It runs without rights on a read-only root."""
    service = OURS[name]
    files = [word for word in service["command"] if word.startswith("/")]
    assert (
        CliRunner().invoke(cli, [*(word for word in service["command"] if word not in files), "--help"]).exit_code == 0
    )
    assert set(environment_of(service)) - KNOWN == set()
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_each_part_starts_when_its_login_is_there() -> None:
    """Logins need the schema, and the schema needs Postgres."""
    waits = {
        name: {on: how["condition"] for on, how in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    done = "service_completed_successfully"
    assert [SERVICES[name]["deploy"]["replicas"] for name in ("broker", "worker")] == [2, 2]
    assert [waits[name] for name in ("schema", "logins", "broker", "worker", "console")] == [
        {"postgres": "service_healthy"}, {"schema": done}, {"logins": done}, {"logins": done}, {"logins": done},
    ]  # fmt: skip


def test_the_console_alone_is_published_on_this_machine() -> None:
    """On the port where it listens."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    port = Settings.model_validate({}).console_port
    assert published == {"console": [f"${{CONSOLE_ADDRESS:-127.0.0.1:{port}}}:{port}"]}


@contextmanager
def stack() -> Iterator[tuple[dict[str, str], list[Process]]]:
    """Run the stack on its own Postgres; yields the operator's environment, a broker, a worker and the console."""
    with ExitStack() as ends:
        postgres = ends.enter_context(embedded_postgres.start(settings={"fsync": "off"}))
        wanted = environment_of(SERVICES["postgres"])
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            password = psycopg.sql.Literal(wanted["POSTGRES_PASSWORD"])
            role, name = (psycopg.sql.Identifier(wanted[key]) for key in ("POSTGRES_USER", "POSTGRES_DB"))
            connection.execute(psycopg.sql.SQL("create role {} superuser login password {}").format(role, password))
            connection.execute(psycopg.sql.SQL("create database {} owner {}").format(name, role))

        def environment(service: str) -> dict[str, str]:
            own = environment_of(SERVICES[service])
            assert own["PGHOST"] == "postgres"
            return plain_environment() | own | {"PGHOST": postgres.host, "PGPORT": str(postgres.port)}

        command(environment("schema"), *SERVICES["schema"]["command"])
        program, *words = SERVICES["logins"]["entrypoint"]
        psql = [str(find_bin_folder() / program), *(word.replace("=/", f"={FOLDER}{os.sep}") for word in words)]
        for _ in range(2):  # a second `up` runs it again
            subprocess.run(psql, env=environment("logins"), check=True, capture_output=True, timeout=PATIENCE_SECONDS)
        command(environment("operator"), "token", "create", "ann", "--role", "operator")
        free = {"NOETL_BROKER_HEALTH_PORT": "0", "NOETL_BROKER_CONSOLE_PORT": str(free_port())}
        running = []
        for service, word in (("broker", " ready "), ("worker", "worker_started"), ("console", "the console answers")):
            process = Process(
                [sys.executable, "-m", "noetl_broker", *SERVICES[service]["command"]],
                env=environment(service) | free,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            ends.callback(process.kill)
            running.append(process)
            read_until(process, word)  # before that a signal ends a process at once
        yield environment("operator"), running


def command(environment: dict[str, str], *words: str) -> None:
    """Run a command in this process, with exactly this environment; it must succeed."""
    cleared: dict[str, str | None] = dict.fromkeys(os.environ.keys() - environment.keys())
    answer = CliRunner().invoke(cli, words, env=cleared | environment)
    assert answer.exit_code == 0, answer.output


def test_the_stack_runs_a_playbook_to_its_end() -> None:
    """With each part's own login. A stop ends all of them with 0."""
    with stack() as (operator, running):
        command(operator, "register", str(FOLDER.parent / "playbooks" / "diamond.yaml"))
        command(operator, "start", "examples/diamond", "--wait")
        command(operator, "doctor")
        for process in running:
            process.terminate()
        ended = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in running]
        assert [process.returncode for process in running] == [0, 0, 0], ended


@pytest.mark.parametrize("name, key", LOGINS.items())
def test_each_pod_uses_known_commands_and_settings(name: str, key: str) -> None:
    """Its arguments and variables. It runs without rights on a read-only root.

    Its DSN is where it looks: in one file of the secret. The pod sees no other part of it.
    """
    (container,) = PODS[name]["containers"]
    assert CliRunner().invoke(cli, [*container["args"], "--help"]).exit_code == 0
    assert {variable["name"] for variable in container["env"]} - KNOWN == set()
    assert PODS[name]["automountServiceAccountToken"] is False
    assert PODS[name]["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "dsn"]
    (secret,) = [volume["secret"] for volume in PODS[name]["volumes"] if volume["name"] == "dsn"]
    (item,) = secret["items"]
    (file,) = [variable["value"] for variable in container["env"] if variable["name"].endswith("_DSN_FILE")]
    assert file == f"{mount['mountPath']}/{item['path']}"
    assert (secret["secretName"], item["key"]) == ("noetl-broker", key)


def test_a_broker_is_asked_for_its_health_where_it_serves_it() -> None:
    """Liveness is about its main loop. A broker that waits for its database is not killed.

    The image's health check is for brokers too: in compose, services without a port would never be healthy.
    """
    assert [name for name, one in OURS.items() if one.get("healthcheck") != {"disable": True}] == ["broker"]
    (container,) = PODS["noetl-broker"]["containers"]
    (port,) = container["ports"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    probes = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("liveness", "startup", "readiness")}
    assert {probe: get["path"] for probe, get in probes.items()} == {
        "liveness": "/live",
        "startup": "/live",
        "readiness": "/ready",
    }
    assert {get["port"] for get in probes.values()} == {port["name"]}
    assert variables["NOETL_BROKER_HEALTH_PORT"] == str(port["containerPort"])


async def test_the_console_is_asked_where_it_listens() -> None:
    """Whether it lives does not depend on the database, and no probe needs a token."""
    (container,) = PODS["noetl-console"]["containers"]
    probes = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("liveness", "startup", "readiness")}
    async with console(Database(dsn=NOWHERE, name="nowhere"), tokens_demanded=True) as client:
        answers = {probe: (await client.get(get["path"])).status_code for probe, get in probes.items()}
    assert answers == {"liveness": 200, "startup": 200, "readiness": 503}
    assert container["ports"] == [{"name": "http", "containerPort": Settings.model_validate({}).console_port}]
    assert {get["port"] for get in probes.values()} == {"http"}


def test_each_pod_is_tested() -> None:
    """A new one gets its row above."""
    assert set(PODS) == set(LOGINS)


def test_a_stop_leaves_time_to_drain() -> None:
    """Kubernetes and compose kill after their grace periods."""
    drain = Settings.model_validate({}).drain_seconds
    graces = [pod["terminationGracePeriodSeconds"] for name, pod in PODS.items() if name != "noetl-broker-schema"]
    graces += [int(service["stop_grace_period"].removesuffix("s")) for service in OURS.values()]
    assert min(graces) > drain


def _selects(one: dict[str, Any]) -> dict[str, str]:
    selector: dict[str, Any] = one["spec"].get("selector", {})
    labels: dict[str, str] = selector.get("matchLabels", selector)
    return labels


def assert_objects_fit(objects: list[dict[str, Any]]) -> None:
    """Each object has the fields of its kind. What selects pods selects those of its own part."""
    for one in objects:
        kubernetes_validate.validate(one, KUBERNETES_VERSION, strict=True)
    pods = [one["spec"]["template"]["metadata"]["labels"] for one in objects if "template" in one["spec"]]
    selected = [(one["metadata"]["labels"], _selects(one)) for one in objects if _selects(one)]
    assert [labels for labels, wanted in selected if wanted != labels or pods.count(wanted) != 1] == []


def test_the_base_fits_the_schemas_of_kubernetes() -> None:
    """With the image of this version in every place."""
    assert_objects_fit(OBJECTS)
    images = {container["image"] for pod in PODS.values() for container in pod["containers"]}
    assert images == {f"noetl-broker:{__version__}"}


def _built(folder: Path) -> list[dict[str, Any]]:
    """Give what kustomize makes of a folder; skips without a program for it."""
    builders = (["kustomize", "build"], ["kubectl", "kustomize"])
    found = next((words for words in builders if shutil.which(words[0])), None)
    if found is None:
        pytest.skip("there is no kustomize here: apt-get install kustomize")
    answer = subprocess.run([*found, str(folder)], capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS)
    return objects_of(answer.stdout)


def test_production_has_copies_of_each_part_and_a_way_to_the_console() -> None:
    """A drained node takes one of them. The ingress leads to the service, and the service to the console."""
    objects = _built(KUBERNETES / "overlays" / "production")
    assert_objects_fit(objects)
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for one in objects:
        by_kind.setdefault(one["kind"], []).append(one)
    copies = {one["metadata"]["name"]: one["spec"]["replicas"] for one in by_kind["Deployment"]}
    budgets = {one["metadata"]["name"]: one["spec"]["maxUnavailable"] for one in by_kind["PodDisruptionBudget"]}
    assert ({name for name, count in copies.items() if count > budgets[name]}, len(copies)) == (set(budgets), 3)
    containers = [one["spec"]["template"]["spec"]["containers"][0] for one in objects if "template" in one["spec"]]
    assert {container["image"] for container in containers} == {f"registry.example.com/noetl-broker:{__version__}"}
    assert all({"cpu", "memory"} <= container["resources"]["requests"].keys() for container in containers)
    [service], [ingress] = by_kind["Service"], by_kind["Ingress"]
    [path] = ingress["spec"]["rules"][0]["http"]["paths"]
    wanted = {"name": service["metadata"]["name"], "port": {"name": service["spec"]["ports"][0]["name"]}}
    assert path["backend"] == {"service": wanted}
    assert [one["targetPort"] for one in service["spec"]["ports"]] == [
        port["name"] for container in containers if container["name"] == "console" for port in container["ports"]
    ]
