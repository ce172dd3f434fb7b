"""Generates the page of the public Python names, from their signatures and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import noetl_broker

LINE = 80
ABOUT = """\
The public names of `noetl_broker`, from their docstrings. [Python](python.md) shows how to use them."""


def python_api_page() -> str:
    """Return the page: a heading for each name, and one for each method."""
    parts = ["# Python API", ABOUT]
    for name in noetl_broker.__all__:
        if not name.startswith("_"):
            parts += _section(f"## `{name}`", name, getattr(noetl_broker, name))
    return "\n\n".join(parts) + "\n"


def _section(heading: str, name: str, value: Any) -> Iterator[str]:
    yield heading
    if not (isinstance(value, type) and issubclass(value, Exception)) or "__init__" in vars(value):
        yield f"```python\n{_signature(name, value)}\n```"
    yield inspect.getdoc(value) or ""
    if isinstance(value, type):
        for method, member in vars(value).items():
            if inspect.isfunction(member) and not method.startswith("_"):
                yield from _section(f"### `{name}.{method}`", method, member)


def _signature(name: str, value: Any) -> str:
    signature = inspect.signature(value)
    kind = "class" if isinstance(value, type) else "async def" if inspect.iscoroutinefunction(value) else "def"
    parameters = [*_parameters(signature)]
    returns = "" if kind == "class" else f" -> {signature.return_annotation}"
    line = f"{kind} {name}({', '.join(parameters)}){returns}"
    if len(line) <= LINE:
        return line
    return "\n".join([f"{kind} {name}(", *(f"    {parameter}," for parameter in parameters), f"){returns}"])


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    """Yield the parameters without `self`. `inspect` would quote their types, which are text."""
    starred = False
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        if name != "self":
            default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
            yield f"{name}: {parameter.annotation}{default}"
