"""The stacks for compose and Kubernetes: the program knows every command, variable and secret in them.

The stack for compose also runs without containers: the same commands, environments and order on a local Postgres.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from click.testing import CliRunner

from noetl_broker import __version__, embedded_postgres
from noetl_broker.cli.main import cli
from noetl_broker.embedded_postgres.binaries import find_bin_folder
from noetl_broker.settings import PREFIX, Settings
from tests.cli.conftest import PATIENCE_SECONDS, plain_environment, read_until
from tests.processes import Process

FOLDER = Path(__file__).parents[2] / "deploy"
SERVICES: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]
OBJECTS: list[dict[str, Any]] = [*yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "noetl-broker"}
PODS = {
    one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in OBJECTS if one["kind"] in {"Job", "Deployment"}
}
KNOWN = {PREFIX + name.upper() for name in Settings.model_fields} | {"PGHOST", "PGUSER", "PGPASSWORD", "PGDATABASE"}
PASSWORDS = {"OWNER_PASSWORD": "o'w\"n $er", "BROKER_PASSWORD": "b' r", "WORKER_PASSWORD": "w\\r"}


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


def test_two_brokers_and_two_workers_start_when_their_logins_are_there() -> None:
    """Logins need the schema, and the schema needs Postgres."""
    waits = {
        name: {on: how["condition"] for on, how in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    done = "service_completed_successfully"
    assert [SERVICES[name]["deploy"]["replicas"] for name in ("broker", "worker")] == [2, 2]
    assert [waits[name] for name in ("schema", "logins", "broker", "worker")] == [
        {"postgres": "service_healthy"}, {"schema": done}, {"logins": done}, {"logins": done},
    ]  # fmt: skip


@contextmanager
def stack() -> Iterator[tuple[dict[str, str], list[Process]]]:
    """Run the stack on its own Postgres; yields the operator's environment, a broker and a worker."""
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
        running = []
        for service, word in (("broker", " ready "), ("worker", "worker_started")):
            process = Process(
                [sys.executable, "-m", "noetl_broker", *SERVICES[service]["command"]],
                env=environment(service) | {"NOETL_BROKER_HEALTH_PORT": "0"},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
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
        ended = [process.communicate(timeout=PATIENCE_SECONDS)[1] for process in running]
        assert [process.returncode for process in running] == [0, 0], ended


@pytest.mark.parametrize(
    "name, key", [("noetl-broker-schema", "owner"), ("noetl-broker", "broker"), ("noetl-worker", "worker")]
)
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


def test_each_pod_is_tested() -> None:
    """A new one gets its row above."""
    assert set(PODS) == {"noetl-broker-schema", "noetl-broker", "noetl-worker"}


def test_a_stop_leaves_time_to_drain() -> None:
    """Kubernetes and compose kill after their grace periods."""
    drain = Settings.model_validate({}).drain_seconds
    graces = [pod["terminationGracePeriodSeconds"] for name, pod in PODS.items() if name != "noetl-broker-schema"]
    graces += [int(service["stop_grace_period"].removesuffix("s")) for service in OURS.values()]
    assert min(graces) > drain


def test_objects_find_each_other_by_their_labels() -> None:
    """A deployment selects its pods, the disruption budget the brokers."""
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in OBJECTS
        if "template" in one["spec"]
    }
    selected = [one["spec"]["selector"]["matchLabels"] for one in OBJECTS if "selector" in one["spec"]]
    assert selected == [labels["noetl-broker"], labels["noetl-broker"], labels["noetl-worker"]]


def test_a_cluster_pulls_the_image_of_this_version() -> None:
    """In every place of the file."""
    named = re.findall(r"image: noetl-broker:(\S+)", (FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))
    assert set(named) == {__version__}
