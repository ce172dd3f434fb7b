"""Makes a route of a row: parameters, body, errors and role come from the models of its action."""

from __future__ import annotations

from http import HTTPStatus
from inspect import Parameter, Signature
from operator import getitem
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response
from pydantic import create_model
from pydantic.fields import FieldInfo
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.routing import compile_path

from noetl_broker.console.access import Anybody, caller_with
from noetl_broker.console.problem import PROBLEM_CONTENT, Refusal
from noetl_broker.console.services import Services, services_of
from noetl_broker.diagram.layout import MissingLibrary
from noetl_broker.service.action import Caller, Cost, ServiceAction
from noetl_broker.service.images import SVG, Image
from noetl_broker.service.models.base import Given

IN_HEADER: Final = "idempotency_key"
# A browser that opens the SVG itself runs no script and loads nothing.
IMAGE_POLICY: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
NO_LIBRARY: Final = (
    "the console lacks a library to draw an SVG: pip install 'noetl-broker[console]' where it runs, or ask with"
    " ?format=mermaid"
)


class Row(NamedTuple):
    """A route. Fields of the request are in the path, the header, and else in the query (GET, DELETE) or the body.

    `in_query`: fields in the query although there is a body. `is_urgent`: it is answered while requests hold all other
    connections.
    """

    method: str
    path: str
    action: ServiceAction[Any, Any]
    status: HTTPStatus = HTTPStatus.OK
    in_query: tuple[str, ...] = ()
    takes_body: bool = True
    leaves_out_defaults: bool = False
    is_urgent: bool = False


def register_names(kind: str, *endings: str) -> None:
    """Let routes say `{name:kind}`: a name that does not end as a route below it does, as in `/NAME/pause`.

    Without this, a wrong method of that route would act on another name.
    """

    class Convertor(PathConvertor):
        regex = f"(?!(?:.*/)?(?:{'|'.join(endings)})$).+"

    register_url_convertor(kind, Convertor())


def add_route(router: APIRouter, row: Row) -> None:
    """Add the route of a row. Raises TypeError for a function that names no role."""
    action = row.action
    if not isinstance(action, ServiceAction):
        raise TypeError(f"{action.__name__} is no action of the service: give it @action with the role that it needs")
    is_image = action.answer is Image
    router.add_api_route(
        row.path,
        _endpoint(row),
        methods=[row.method],
        status_code=row.status,
        tags=[row.path.split("/")[1].replace("-", " ")],
        response_model=None if is_image else action.answer,
        response_class=Response if is_image else router.default_response_class,
        response_model_exclude_defaults=row.leaves_out_defaults,
        responses=_images(action) if is_image else None,
        dependencies=[Anybody] if action.roles is None else None,
    )


def _endpoint(row: Row) -> Any:
    action = row.action
    parameters, body = _parameters(row)

    async def endpoint(request: Request, caller: Caller | None = None, **given: Any) -> Any:
        sent = given.pop("body", None)
        fields = given | ({} if sent is None else {name: getattr(sent, name) for name in type(sent).model_fields})
        asked = action.request.model_construct(**fields)
        answer = await perform(services_of(request), action, caller or Caller(), asked, is_urgent=row.is_urgent)
        if isinstance(answer, Image):
            headers = IMAGE_POLICY if answer.media_type == SVG else None
            return Response(answer.text, media_type=answer.media_type, headers=headers)
        return answer

    first = [Parameter("request", Parameter.POSITIONAL_OR_KEYWORD, annotation=Request)]
    if action.roles is not None:
        kind = getitem(Annotated, (Caller, Depends(caller_with(action.roles))))
        first.append(Parameter("caller", Parameter.POSITIONAL_OR_KEYWORD, annotation=kind))
    if body is not None:
        parameters.append(body)
    endpoint.__signature__ = Signature(first + parameters)  # type: ignore[attr-defined] # the framework reads it
    endpoint.__name__ = action.function.__name__
    endpoint.__doc__ = action.function.__doc__
    return endpoint


def _parameters(row: Row) -> tuple[list[Parameter], Parameter | None]:
    """The parameters of a route, and the one of its body."""
    model = row.action.request
    in_path = {*compile_path(row.path)[2]}
    has_body = row.method in {"POST", "PUT"}
    parameters, of_body = [], {}
    for name, field in model.model_fields.items():
        kind: Any = Query
        if name in in_path:
            kind = Path
        elif name == IN_HEADER:
            kind = Header
        elif has_body and name not in row.in_query:
            of_body[name] = field
            continue
        parameters.append(_parameter(name, field, kind))
    return parameters, _body(model, of_body, row) if has_body and row.takes_body else None


def _parameter(name: str, field: FieldInfo, kind: Any) -> Parameter:
    shown = kind(description=field.description, examples=field.examples)
    annotation = getitem(Annotated, (field.annotation, *field.metadata, shown))
    default = Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _body(model: type[Given], fields: dict[str, FieldInfo], row: Row) -> Parameter:
    """The body: the fields that are nowhere else. It may be left out where none is needed, but by a PUT."""
    shape: type[Given] = model
    if len(fields) < len(model.model_fields) or not fields:
        base = type(model.__name__, (Given,), {"model_config": model.model_config, "__doc__": model.__doc__})
        made: dict[str, Any] = {name: (field.annotation, field) for name, field in fields.items()}
        name = model.__name__ if fields else "Nothing"
        shape = create_model(name, __base__=base, __doc__=model.__doc__ if fields else "An empty body.", **made)
    needed = row.method == "PUT" or any(field.is_required() for field in fields.values())
    annotation: Any = Annotated[shape if needed else shape | None, Body()]
    return Parameter("body", Parameter.KEYWORD_ONLY, annotation=annotation, default=Parameter.empty if needed else None)


def _images(action: ServiceAction[Any, Any]) -> dict[int | str, dict[str, Any]]:
    if "format" not in action.request.model_fields:
        return {200: {"content": {SVG: {}}}}
    missing = {"description": "the library to draw an SVG is not installed", "content": PROBLEM_CONTENT}
    return {200: {"content": {SVG: {}, "text/plain": {}}}, 501: missing}


async def perform(
    services: Services, action: ServiceAction[Any, Any], caller: Caller, given: Given, *, is_urgent: bool = False
) -> Any:
    """The answer of an action, on a connection or in a thread as it computes much. Raises Refusal, and its faults."""
    try:
        if action.cost is not Cost.ASKS:
            threads = services.short_work if action.cost is Cost.SHORT else services.long_work
            return await threads.run(lambda connection: action(connection, caller, given))
        connections = services.own_connections if is_urgent else services.connections
        async with connections.borrow() as connection:
            return await action(connection, caller, given)
    except MissingLibrary:
        raise Refusal(HTTPStatus.NOT_IMPLEMENTED, NO_LIBRARY) from None
