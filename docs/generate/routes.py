"""Generates the page of the HTTP API's routes, from its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from docs.generate.markdown import holds, link, meaning, table
from noetl_broker.console.app import PREFIX, create_app
from noetl_broker.console.services import ConsoleOptions
from noetl_broker.store.connect.dsn import Database

ABOUT = f"""\
Each route with its role, parameters, body and answer, from the document `{PREFIX}/openapi.json`.
[HTTP API](api.md) explains how to use them. Each path begins with `{PREFIX}`.
[Roles](security.md#who-may-what) lists what each role may. Each error is a [`Problem`](#problem)."""
LISTED = "Listed_"  # one page of a list


def routes_page() -> str:
    """Return the page."""
    document = create_app(ConsoleOptions(database=Database())).openapi()
    models, parts, noun, bodies = (
        document["components"]["schemas"],
        ["# Routes of the HTTP API", ABOUT],
        None,
        {"Nothing"},
    )
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if operation["tags"] != noun:
                noun = operation["tags"]
                parts.append(f"## {noun[0].capitalize()}")
            body = _body(operation)
            bodies.add(body)
            parts.append(f"### `{method.upper()} {path.removeprefix(PREFIX)}`")
            parts += [operation["description"], " ".join(_sentences(operation, models.get(body, {})))]
            if rows := [*_parameters(operation), *_fields(models.get(body, {}), of_body=True)]:
                parts.append(table(("name", "where", "holds", "meaning"), rows))
    parts += ["## Models", "What requests and answers hold."]
    for name in sorted(models.keys() - bodies, key=str.lower):
        if not name.startswith(LISTED):
            parts += [f"### `{name}`", models[name]["description"]]
            fields = [(key, value, said) for key, _, value, said in _fields(models[name])]
            parts += [table(("field", "holds", "meaning"), fields)] if fields else [holds(models[name], _heading)]
    return "\n\n".join(parts) + "\n"


def _heading(model: str) -> str:
    return f"`{model}`"


def _body(operation: Mapping[str, Any]) -> str:
    """Return the name of the model of the body."""
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("anyOf", [schema])[0].get("$ref", "")).rpartition("/")[2]


def _sentences(operation: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[str]:
    roles = operation["x-roles"]
    yield "Needs no token." if roles is None else f"For {', '.join(roles)}."
    if "properties" in body:
        yield f"The body: {body['description']}"
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            yield f"The answer, {status}: {' or '.join(_answer(*item) for item in answer['content'].items())}."


def _answer(content_type: str, content: Mapping[str, Any]) -> str:
    schema = content.get("schema", {})
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if name.startswith(LISTED):
        return f"a page of {link(_heading(name.removeprefix(LISTED).rstrip('_')))}"
    return holds(schema, _heading) if content_type == "application/json" else f"`{content_type}`"


def _parameters(operation: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for entry in operation.get("parameters", ()):
        where = entry["in"] + (", required" if entry["required"] and entry["in"] != "path" else "")
        yield f"`{entry['name']}`", where, holds(entry["schema"], _heading), meaning(entry["schema"])


def _fields(model: Mapping[str, Any], *, of_body: bool = False) -> Iterator[tuple[str, str, str, str]]:
    for key, schema in model.get("properties", {}).items():
        where = "body, required" if of_body and key in model.get("required", ()) else "body"
        yield f"`{key}`", where, holds(schema, _heading), meaning(schema)
