"""The results as a table and as JSON, with the versions that were measured."""

from __future__ import annotations

import json
import os
import platform
import statistics
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.results import Row

VERDICTS: Final = {True: "met", False: "missed", None: ""}
PACKAGES: Final = ("noetl-broker", "asyncpg", "orjson", "jinja2")


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = Table(title="noetl-broker: median of the rounds")
    for heading in ("figure", "what"):
        table.add_column(heading)
    for heading in ("median", "min", "max", "bar", "", "fdatasync ms", "commit ms"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*cells(row.as_json()))
    Console(width=None if os.isatty(1) else 150).print(table)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of the table for a row of the JSON."""
    beside = ", ".join(f"{name} {number(value)}" for name, value in row["beside"].items())
    probes = (
        f"{statistics.median(row[name]):.2f}" if row[name] else "" for name in ("fdatasync_ms", "commit_ms")
    )  # fmt: skip
    return (
        row["figure"],
        f"{row['what']} ({beside})" if beside else row["what"],
        f"{number(row['median'])} {row['unit']}",
        number(row["min"]),
        number(row["max"]),
        row["bar"] or "",
        VERDICTS[row["met"]],
        *probes,
    )


def number(value: float) -> str:
    """Return a number with three significant digits, or as an integer."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def keep(rows: list[Row], *, folder: Path, name: str, postgres: str, failed: list[str]) -> Path:
    """Write the results under this name; return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "architecture": platform.machine()},
        "versions": {"python": platform.python_version(), "postgres": postgres}
        | {package: version(package) for package in PACKAGES},
        "failed": failed,
        "rows": [row.as_json() for row in rows],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {path}")
    return path


def markdown(kept: dict[str, Any]) -> str:
    """Return the table of docs/explanation/performance.md."""
    lines = ["| figure | what | median | min | max | bar | | fdatasync ms | commit ms |", "|" + "---|" * 9]
    lines += [f"| {' | '.join(cells(row))} |" for row in kept["rows"]]
    machine = f"{kept['machine']['cores']} cores, {kept['machine']['system']} {kept['machine']['architecture']}"
    versions = ", ".join(f"{name} {found}" for name, found in kept["versions"].items())
    without = f" Failed: {', '.join(kept['failed'])}." if kept["failed"] else ""
    return f"Taken {kept['taken_at'][:10]} on {machine}; {versions}.{without}\n\n" + "\n".join(lines) + "\n"
