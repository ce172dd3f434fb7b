"""Makes a command of an action of the service: arguments, options, help and errors come from the request's model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from noetl_broker.cli import output
from noetl_broker.cli.arguments import PLAYBOOK_PATH, ExecutionId, StepName
from noetl_broker.cli.command import Call, command
from noetl_broker.cli.rights import OPERATOR
from noetl_broker.cli.typed import read_typed
from noetl_broker.commands import ActionEntry
from noetl_broker.errors import EXIT_FAILED, OperatorFault
from noetl_broker.service.action import Caller
from noetl_broker.service.field_errors import request_of
from noetl_broker.service.models.base import MOST_ROWS, Given, Paged, type_of, words_of
from noetl_broker.service.typed_values import TAGS, read_tags

MOST_LISTED = 100_000  # rows of one call
Asked = TypeVar("Asked", bound=Given)
Answer = dict[str, Any]
# What a shell completes, by the name of the field.
COMPLETED: Mapping[str, click.ParamType[Any]] = MappingProxyType({
    "execution_id": ExecutionId(), "path": PLAYBOOK_PATH, "step": StepName(), "from_step": StepName(),
})  # fmt: skip
NO_TYPES: Mapping[str, click.ParamType[Any]] = MappingProxyType({})

LIMIT = click.option(
    "--limit", "most", type=click.IntRange(1, MOST_LISTED), default=100, show_default=True, help="How many at most."
)


class Face(NamedTuple):
    """How a request is written on the command line.

    `arguments` are its fields without an option, in their order. `names` has other names of options; `helps` has other
    helps, and `hides` the fields that the command line does not have.
    """

    request: type[Given]
    arguments: Sequence[str] = ()
    names: Mapping[str, str | tuple[str, ...]] = MappingProxyType({})
    helps: Mapping[str, str] = MappingProxyType({})
    hides: frozenset[str] = frozenset()
    types: Mapping[str, click.ParamType[Any]] = NO_TYPES

    def options(self, *, prefix: str = "") -> list[Callable[[Any], Any]]:
        """The arguments and options, as click decorators in the order of the help; a body takes them with a prefix."""
        made = [self._argument(name) for name in self.arguments]
        for name, field in self.request.model_fields.items():
            if name in self.arguments or name in self.hides or (name in Paged.model_fields and self.lists):
                continue
            made.append(self._option(name, field, prefix))
        if self.lists:
            made.append(LIMIT)
        return made

    def given_to(self, body: Any, *, prefix: str = "") -> Any:
        """A body with the arguments and options."""
        for option in reversed(self.options(prefix=prefix)):
            option(body)
        return body

    @property
    def lists(self) -> bool:
        """Whether the answer comes in pages."""
        return issubclass(self.request, Paged)

    def read(self, given: Mapping[str, Any]) -> Any:
        """The request of a call. Raises OperatorFault with the option that is wrong."""
        values: dict[str, Any] = {
            name: tags_given(value)
            if name == TAGS
            else read_typed(name, self.request.model_fields[name].annotation, value, self.written(name))
            for name, value in given.items()
            if value not in (None, ()) and name in self.request.model_fields  # (): an option that is given many times
        }
        return request_of(self.request, values, self.written)

    def written(self, name: str) -> str:
        """A field as a person writes it: `--keep`, `NAME`."""
        return name.upper() if name in self.arguments else self._options_of(name)[0]

    def _options_of(self, name: str) -> tuple[str, ...]:
        field = self.request.model_fields.get(name)
        names = self.names.get(
            name, "--tag" if name == TAGS else f"--{((field and field.alias) or name).replace('_', '-')}"
        )
        return (names,) if isinstance(names, str) else names

    def _argument(self, name: str) -> Callable[[Any], Any]:
        field = self.request.model_fields[name]
        metavar = {"execution_id": "ID"}.get(name, name.upper())
        return click.argument(
            name, metavar=metavar, required=field.is_required(), type=self.types.get(name, COMPLETED.get(name))
        )

    def _option(self, name: str, field: FieldInfo, prefix: str) -> Callable[[Any], Any]:
        help_ = self.helps.get(name) or _sentence(field)
        names = *self._options_of(name), f"{prefix}{name}"
        if field.annotation is bool:
            return click.option(*names, is_flag=True, default=None, help=help_)
        if words := words_of(field):
            return click.option(*names, type=click.Choice(words, case_sensitive=False), help=help_)
        kind = self.types.get(name, COMPLETED.get(name))
        many = get_origin(type_of(field)) is list or name == TAGS
        return click.option(*names, metavar=_metavar(name, field), type=kind, multiple=many, help=help_)


def tags_given(written: Sequence[str]) -> dict[str, str]:
    """The tags of options `--tag NAME=VALUE`. Raises OperatorFault."""
    try:
        return read_tags(written)
    except ValueError as error:
        raise OperatorFault(f"--tag: {error}") from None


def face(
    name: str,
    action: str,
    said: Face,
    *,
    example: str,
    role: str = OPERATOR,
    part: str | None = None,
    fails: Callable[[Answer], bool] = lambda _answer: False,
) -> Callable[[Callable[[Call, Any, Any], None]], click.Command]:
    """Make a command of a function that prints the answer of an action: `executions.start_execution`.

    Its docstring is the help. It gets the call, the request and the answer: of a list, its rows. With --json, the
    answer is printed, or only a `part` of it. `fails` says which answer exits with 1.
    """

    def decorate(show: Callable[[Call, Any, Any], None]) -> click.Command:
        def body(call: Call, *, most: int = 0, **given: Any) -> int:
            asked = said.read(given)
            answer: Any = ask_all(call, action, asked, most=most) if said.lists else ask(call, action, asked)
            if not call.printed(answer if part is None else answer[part]):
                show(call, asked, answer)
            return EXIT_FAILED if fails(answer) else 0

        body.__doc__ = show.__doc__
        return command(name, example=example, role=role)(said.given_to(body))

    return decorate


def command_of(name: str, entry: ActionEntry, types: Mapping[str, click.ParamType[Any]] = NO_TYPES) -> click.Command:
    """The command of an entry; `types` has what a shell completes for its fields."""
    module, _, model = entry.request.partition(".")
    request = getattr(service(f"models.{module}"), model)

    def show(call: Call, asked: Given, answer: Answer) -> None:
        done = answer.get("requested", answer.get("changed", True))
        fields = asked.model_dump() | answer
        # Names that people gave may look like commands, so the schema comes before them.
        output.say(call.with_schema(entry.says if done else entry.otherwise).format_map(fields))
        if entry.note:
            output.note(call.with_schema(entry.note).format_map(fields))

    show.__doc__ = f"{entry.sentence}\n\n{entry.details}"
    said = Face(request, entry.arguments, helps=entry.helps, types=types)
    return face(name, entry.action, said, example=entry.example, fails=is_not_requested)(show)


def is_not_requested(answer: Answer) -> bool:
    """Whether an answer says that the broker was not asked."""
    return answer.get("requested") is False


def ask(call: Call, action: str, asked: Given | None = None, /, **fields: Any) -> Any:
    """The answer of an action to a request, or to its fields. It has a connection of its own. Raises FieldFault."""
    function = action_named(action)
    given = request_of(function.request, fields) if asked is None else asked
    answer = asyncio.run(_ask(call, lambda connection: function(connection, caller_of(call), given)))
    if isinstance(answer, dict):
        _note_unanswered(answer.get("unanswered", ()))
    return answer


def _note_unanswered(buckets: Iterable[str]) -> None:
    for one in buckets:
        output.note(f"noetl-broker: a bucket did not answer: {one}")


def ask_all(call: Call, action: str, asked: Paged | None = None, /, *, most: int, **fields: Any) -> list[Answer]:
    """The rows of all pages of a list, up to so many; `asked` and `fields` as of `ask`."""
    function = action_named(action)
    first: Paged = request_of(function.request, fields) if asked is None else asked

    async def read(connection: Any) -> list[Answer]:
        rows: list[Answer] = []
        unanswered: dict[str, None] = {}
        page: Paged | None = first
        while page is not None and len(rows) < most:
            part = page.model_copy(update={"limit": min(most - len(rows), MOST_ROWS)})
            answer = await function(connection, caller_of(call), part)
            rows += answer["items"]
            unanswered.update(dict.fromkeys(answer.get("unanswered", ())))
            page = None if answer["next"] is None else first.model_copy(update={"cursor": answer["next"]})
        _note_unanswered(unanswered)
        return rows

    return asyncio.run(_ask(call, read))


async def _ask(call: Call, question: Callable[[Any], Awaitable[Any]]) -> Any:
    async with session_of(call) as connection:
        return await question(connection)


def session_of(call: Call) -> Any:
    """A connection for a command, or those to buckets. Help does not load the driver."""
    name = click.get_current_context().info_name
    return import_module("noetl_broker.store.connect.session").place(call.database, name=name)


def caller_of(call: Call) -> Caller:
    """The login of the connection, with the limits of the settings."""
    return Caller(rules=call.playbook_rules, database=call.database, keep_keys=call.settings.keep_keys)


def service(module: str) -> Any:
    """A module of the service. Help does not load it."""
    return import_module(f"noetl_broker.service.{module}")


def action_named(name: str) -> Any:
    """An action by its module and name: `executions.start_execution`."""
    module, _, function = name.partition(".")
    return getattr(service(module), function)


METAVARS: Mapping[str, str] = MappingProxyType({
    "execution_id": "ID", "payload": "JSON", "form": "JSON", "version": "N", "path": "PATH", "step": "STEP",
    "from_step": "STEP", "since": "TIME", "until": "TIME", "idempotency_key": "KEY", "rate": "RATE",
    "tag": "NAME=VALUE", "tags": "NAME=VALUE", "key": "KEY",
    **dict.fromkeys(("keep_seconds", "start_after", "every", "jitter", "catch_up"), "DURATION"),
})  # fmt: skip


def _metavar(name: str, field: FieldInfo) -> str:
    kinds = get_args(field.annotation) or (field.annotation,)
    return METAVARS.get(name, "INTEGER" if int in kinds else "TEXT")


def _sentence(field: FieldInfo) -> str:
    """The description of a field as a sentence, with its default and its bounds."""
    text, default, notes = (field.description or "").strip(), field.default, []
    if default and isinstance(default, str | int | float):
        notes.append(f"default: {default:g}" if isinstance(default, float) else f"default: {default}")
    for bound in field.metadata:
        numbers = ((word, getattr(bound, key, None)) for word, key in _BOUNDS)
        notes += [f"{word} {number:,}" for word, number in numbers if isinstance(number, int | float)]
    sentence = f"{text[:1].upper()}{text[1:]}." if text else ""
    return " ".join(filter(None, (sentence, f"[{'; '.join(notes)}]" if notes else "")))


_BOUNDS = (("at least", "ge"), ("more than", "gt"), ("at most", "le"), ("less than", "lt"))
