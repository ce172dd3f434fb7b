"""The common parts of all commands: options, settings, and errors as one sentence with an exit code."""

from __future__ import annotations

import contextlib
import errno
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from noetl_broker import logs
from noetl_broker.cli import output
from noetl_broker.cli.arguments import ExecutionId, StepName
from noetl_broker.cli.rights import OPERATOR, with_remedy
from noetl_broker.dev_folder import dev_folder_of
from noetl_broker.errors import EXIT_FAILED, EXIT_UNAVAILABLE, BrokerError, OperatorFault, PermissionFault
from noetl_broker.logs.stderr import non_blocking_stderr
from noetl_broker.playbook import PlaybookRules
from noetl_broker.settings import Settings, databases_of, load_settings, with_dsn
from noetl_broker.store.connect.dsn import Database
from noetl_broker.store.connect.schema_name import with_schema
from noetl_broker.store.connect.sqlstates import reason_of
from noetl_broker.tracing.spans import Emit

INTERRUPTED = 130
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The common options and the settings of one call.

    A command that serves several databases uses `databases`, others the first one, `database`. `given_dsns` and
    `given_schemas` are the values of `--dsn` and `--schema`.
    """

    settings: Settings
    databases: tuple[Database, ...]
    given_dsns: tuple[str, ...]
    given_schemas: tuple[str, ...]
    as_json: bool
    config: Path | None
    debug: bool

    @property
    def playbook_rules(self) -> PlaybookRules:
        """The limits in the settings for playbooks that run or are drawn: any step type counts."""
        return self.registration_rules().of_registered()

    def registration_rules(self) -> PlaybookRules:
        """Give the limits of a playbook that is to be registered, with the step types of the settings."""
        return PlaybookRules(**self.set_for(PlaybookRules))

    def set_for(self, options: type[Any]) -> dict[str, Any]:
        """Give the settings that a dataclass of options has fields for."""
        names = {each.name for each in fields(options)} & Settings.model_fields.keys()
        return {name: getattr(self.settings, name) for name in names}

    @property
    def database(self) -> Database:
        """The database of a command that serves one."""
        return self.databases[0]

    def at(self, dsn: str) -> Call:
        """Give the call with the database at this address."""
        return replace(self, databases=(replace(self.database, dsn=dsn),))

    def printed(self, document: Any) -> bool:
        """Print a document if --json is given; gives whether it was."""
        if self.as_json:
            output.show_json(document)
        return self.as_json

    def say(self, text: str) -> None:
        """Print a text for people, with `--schema` in its command lines; with --json, nothing."""
        if not self.as_json:
            output.show_text(self.with_schema(text))

    def show_rows(
        self,
        rows: Sequence[Mapping[str, Any]],
        columns: output.Columns,
        *,
        folding: frozenset[str] = frozenset(),
        none: str | None = None,
    ) -> None:
        """Print documents: as JSON, or as a table. `none` says that there are none."""
        if self.printed(rows):
            return
        if not rows and none is not None:
            output.say(none)
        else:
            output.Rows.of(rows, columns, folding).show()

    def with_schema(self, text: str) -> str:
        """Give a text with `--schema` in the command lines that it names, if the schema is not `noetl`."""
        return with_schema(text, self.database.schema)

    def configure_logs(self) -> None:
        """Use the log settings; before, a command logs warnings only."""
        level = "debug" if self.debug else self.settings.log_level
        logs.configure(level=level, form=self.settings.log_format)


Given = str | tuple[str, ...] | None  # of an option that may be repeated
Body = Callable[..., int | None]  # takes a Call and, by name, the command's own options; gives the exit code (None: 0)

LOCATION = (
    ("--dsn", "URL", "Where the database is (or NOETL_BROKER_DSN, or the PG* variables)"),
    ("--schema", "NAME", "The schema of the broker's tables (or NOETL_BROKER_SCHEMA; default: noetl)"),
)
COMMON = (
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
    click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Settings from a YAML or TOML file.",
    ),
    click.option("--debug", is_flag=True, help="Log everything, and show the traceback of an error."),
)

execution_id = click.argument("execution_id", metavar="ID", type=ExecutionId())
step_argument = click.argument("step", metavar="[STEP]", required=False, type=StepName())
with_traceback = click.option("--traceback", is_flag=True, help="Show the tracebacks of errors, too.")


def command(
    name: str,
    *,
    example: str,
    several_databases: bool = False,
    own_database: bool = False,
    serves: bool = False,
    role: str = OPERATOR,
) -> Callable[[Body], click.Command]:
    """Make a click command from a function. Its docstring is the help; `example` has one call a line.

    With an `own_database`, --dsn is refused, and the databases of the settings are not read. A command that `serves`
    never blocks on its log. `role` is what its login needs; the error names it if the login lacks it.
    """

    def decorate(body: Body) -> click.Command:
        @functools.wraps(body)
        def run(*, dsn: Given, schema: Given, as_json: bool, config: Path | None, debug: bool, **own: Any) -> None:
            with non_blocking_stderr() if serves else contextlib.nullcontext(), one_sentence(debug=debug):
                # A library may log before the settings are read.
                logs.configure(level="debug" if debug else "warning", form="console")
                dsns, schemas = ((one,) if isinstance(one, str) else one or () for one in (dsn, schema))
                if "" in dsns:
                    raise OperatorFault("--dsn is empty: give the address of a database, or leave the option out")
                if own_database and dsns:
                    raise OperatorFault(f"{name} starts a Postgres of its own: leave --dsn out")
                settings = load_settings(config)
                if not dsns and not own_database and not (several_databases and settings.dsns):
                    settings = with_dsn(settings)
                call = Call(
                    settings=settings,
                    databases=databases_of(settings, dsns, schemas, several=several_databases),
                    given_dsns=dsns,
                    given_schemas=schemas,
                    as_json=as_json,
                    config=config,
                    debug=debug,
                )
                with _remedies_with_schema(call, role):
                    code = body(call, **own)
            click.get_current_context().exit(code or 0)

        calls = example.splitlines()
        head = "Examples" if len(calls) > 1 else "Example"
        made = click.command(name, epilog="\n  ".join([f"\b\n{head}:", *calls]))(run)
        again = "; again for each further one" if several_databases else ""
        for name_of, metavar, help_ in LOCATION:
            click.option(name_of, metavar=metavar, multiple=several_databases, help=f"{help_}{again}.")(made)
        for option in COMMON:
            option(made)
        return made

    return decorate


@contextlib.contextmanager
def one_sentence(*, debug: bool) -> Iterator[None]:
    """Print an error as one sentence on stderr and exit with its code; with `debug`, print its traceback first."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        _end(INTERRUPTED)
    except BrokerError as error:
        _show_error(str(error), debug=debug)
        _end(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the outermost place: a person reads the message
        hint = "" if debug else "; this is a bug of the program: --debug shows where"
        _show_error(_output_error(error) or f"{reason_of(error)}{hint}", debug=debug)
        _end(EXIT_FAILED)


@contextlib.contextmanager
def _remedies_with_schema(call: Call, role: str) -> Iterator[None]:
    """Add what an error of the database lacks: the needed role, the command that starts it, the schema of a command.

    The schema only if the command serves one.
    """
    try:
        yield
    except BrokerError as error:
        if isinstance(error, PermissionFault):
            error.args = (with_remedy(str(error), role, call.database.schema), *error.args[1:])
        folder = dev_folder_of(call.settings.dsn_file)
        if error.exit_code == EXIT_UNAVAILABLE and folder is not None and not call.given_dsns:
            error.args = (f"{error}; is noetl-broker dev running in {folder.parent}?", *error.args[1:])
        if len({database.schema for database in call.databases}) == 1:
            error.args = (with_schema(str(error), call.databases[0].schema), *error.args[1:])
        raise


def _output_error(error: Exception) -> str | None:
    """Give a message if stdout or stderr cannot be written: unlike an opened file, a stream has no file name."""
    if isinstance(error, OSError) and error.errno in NO_ROOM and error.filename is None:
        return f"the output cannot be written: {error.strerror}"
    return None


def _show_error(message: str, *, debug: bool) -> None:
    if debug:
        output.show_traceback()
    output.note(f"noetl-broker: {' '.join(message.split())}")


def _end(code: int) -> None:
    click.get_current_context().exit(code)


def optional_module(name: str, what: str, extra: str) -> Any:
    """A module of ours that imports an optional library; raises OperatorFault where its extra is not installed."""
    try:
        return import_module(f"noetl_broker.{name}")
    except ImportError as error:
        raise OperatorFault(
            f"{what} needs a package that is not installed ({error.name}): pip install 'noetl-broker[{extra}]'"
        ) from error


@contextlib.contextmanager
def span_exporter(call: Call, service: str) -> Iterator[Emit | None]:
    """Give the function that takes spans (None: traces are off); at the end, send them. Raises OperatorFault."""
    if call.settings.traces == "off":
        yield None
        return
    opened = optional_module("tracing.otlp", f'traces = "{call.settings.traces}"', "otel").otlp(service)
    try:
        yield opened.emit
    finally:
        opened.close()
