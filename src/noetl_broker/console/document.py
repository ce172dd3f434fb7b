"""The OpenAPI document: what the framework knows, with our errors and the role that each route needs."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from noetl_broker.console.access import roles_of
from noetl_broker.console.problem import PROBLEM_CONTENT, FieldError, Problem
from noetl_broker.service.models.base import Role

ANY = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE)
SIGNED_IN = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
WITH_BODY = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE,)
DESCRIPTION = (
    "What the commands of noetl-broker do, over HTTP. Ids are 64-bit numbers and are written as text. Moments are RFC "
    "3339 in UTC. `x-roles` of a route are the roles that may use it; a viewer gets null in place of each payload. "
    "No text has the character U+0000, and none is longer than the database allows: it counts bytes of UTF-8."
)


class Operation(NamedTuple):
    """One method of one path; `roles` None: nobody needs a token."""

    method: str
    path: str
    roles: frozenset[Role] | None
    sentence: str


def operations(routers: tuple[APIRouter, ...], prefix: str) -> Iterator[Operation]:
    """All operations of the API, in the order of its routers."""
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                for method in sorted(route.methods or ()):
                    roles, sentence = roles_of(route.dependant), route.description.split("\n\n")[0]
                    yield Operation(method, prefix + route.path_format, roles, sentence)


def openapi_document(app: FastAPI, listed: tuple[Operation, ...]) -> dict[str, Any]:
    """The document of an application with these operations."""
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    template = "#/components/schemas/{model}"
    for model in (FieldError, Problem):
        schemas[model.__name__] = model.model_json_schema(ref_template=template, mode="serialization")
        schemas[model.__name__].pop("$defs", None)
    for operation in listed:
        entry = document["paths"][operation.path][operation.method.lower()]
        entry["x-roles"] = None if operation.roles is None else [role.value for role in Role if role in operation.roles]
        entry["responses"].pop("422", None)
        errors = (
            *ANY,
            *(SIGNED_IN if operation.roles is not None else ()),
            *(WITH_BODY if "requestBody" in entry else ()),
        )
        for status in errors:
            entry["responses"].setdefault(str(status.value), {"description": status.phrase, "content": PROBLEM_CONTENT})
    return document
