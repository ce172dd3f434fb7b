"""What all commands share: their options, the settings, and errors told in one sentence with a fitting exit code."""

from __future__ import annotations

import contextlib
import errno
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from noetl_broker import logs
from noetl_broker.cli import output
from noetl_broker.cli.arguments import ExecutionId
from noetl_broker.cli.stderr import never_waiting
from noetl_broker.errors import EXIT_FAILED, BrokerError, OperatorFault
from noetl_broker.playbook import Rules as PlaybookRules
from noetl_broker.settings import Settings, load_settings, with_dsn
from noetl_broker.store.faults import reason_of

INTERRUPTED = 130
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a command: what the common options and the settings come to.

    `dsn` None: the PG* variables say where the database is; `given_dsns`: what `--dsn` said.
    """

    settings: Settings
    dsn: str | None
    given_dsns: tuple[str, ...]
    as_json: bool
    config: Path | None
    debug: bool

    @property
    def playbook_rules(self) -> PlaybookRules:
        """What playbooks may hold, by the settings."""
        return PlaybookRules(
            extra_step_types=self.settings.extra_step_types,
            max_document_bytes=self.settings.max_document_bytes,
            template_max_source_chars=self.settings.template_max_source_chars,
        )

    @property
    def dsns(self) -> tuple[str | None, ...]:
        """The databases of a command that serves several."""
        return self.given_dsns or tuple(dsn.get_secret_value() for dsn in self.settings.dsns) or (self.dsn,)

    def log_as_set(self) -> None:
        """Log as the settings say; until then a command logs warnings alone."""
        level = "debug" if self.debug else self.settings.log_level
        logs.configure(level=level, form=self.settings.log_format)


Body = Callable[..., int | None]  # takes a Call and, by name, the command's own options; gives the exit code (None: 0)

ONE_DATABASE = click.option(
    "--dsn", metavar="URL", help="Where the database is (or NOETL_BROKER_DSN, or the PG* variables)."
)
SEVERAL_DATABASES = click.option(
    "--dsn",
    metavar="URL",
    multiple=True,
    help="Where the database is (or NOETL_BROKER_DSN, or the PG* variables); again for each further one.",
)
COMMON = (
    ONE_DATABASE,
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


def command(
    name: str, *, example: str, several_databases: bool = False, serves: bool = False
) -> Callable[[Body], click.Command]:
    """Make a click command of a body; its docstring is the help, `example` (a call a line) stands below it.

    One that `serves` waits for nobody who reads its log.
    """

    def decorate(body: Body) -> click.Command:
        @functools.wraps(body)
        def run(
            *, dsn: str | tuple[str, ...] | None, as_json: bool, config: Path | None, debug: bool, **own: Any
        ) -> None:
            with never_waiting() if serves else contextlib.nullcontext(), one_sentence(debug=debug):
                # No dotted line of a library's log before the settings are known.
                logs.configure(level="debug" if debug else "warning", form="console")
                given = (dsn,) if isinstance(dsn, str) else dsn or ()
                if "" in given:
                    raise OperatorFault("--dsn is empty: say where the database is, or leave the option out")
                settings = load_settings(config)
                if not given and not (several_databases and settings.dsns):
                    settings = with_dsn(settings)
                secret = settings.dsn.get_secret_value() if settings.dsn is not None else None
                call = Call(
                    settings=settings,
                    dsn=given[0] if given else secret,
                    given_dsns=given,
                    as_json=as_json,
                    config=config,
                    debug=debug,
                )
                code = body(call, **own)
            click.get_current_context().exit(code or 0)

        calls = example.splitlines()
        head = "Examples" if len(calls) > 1 else "Example"
        made = click.command(name, epilog="\n  ".join([f"\b\n{head}:", *calls]))(run)
        for option in (SEVERAL_DATABASES if several_databases else ONE_DATABASE, *COMMON[1:]):
            made = option(made)
        return made

    return decorate


@contextlib.contextmanager
def one_sentence(*, debug: bool) -> Iterator[None]:
    """Tell an error in one sentence on stderr and end with its exit code; with `debug` its traceback comes first."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        _end(INTERRUPTED)
    except BrokerError as error:
        _tell(str(error), debug=debug)
        _end(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the outermost place: whatever it is, a person reads it
        hint = "" if debug else "; this is a fault of the program: --debug shows where"
        _tell(_unwritten(error) or f"{reason_of(error)}{hint}", debug=debug)
        _end(EXIT_FAILED)


def _unwritten(error: Exception) -> str | None:
    """Say that our output found no room: a stream has no file name, other than a file that a command opens."""
    if isinstance(error, OSError) and error.errno in NO_ROOM and error.filename is None:
        return f"the output cannot be written: {error.strerror}"
    return None


def _tell(message: str, *, debug: bool) -> None:
    if debug:
        output.show_traceback()
    output.note(f"noetl-broker: {' '.join(message.split())}")


def _end(code: int) -> None:
    click.get_current_context().exit(code)
