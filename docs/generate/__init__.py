"""Generates pages of the docs site from the program: what the program says is not written twice."""

from __future__ import annotations

from pathlib import Path

REFERENCE = Path(__file__).parents[1] / "reference"
GENERATED = ("api-routes.md", "cli.md", "keys.md", "python-api.md", "tables.md")
