"""Writes the list of versions beside their folders: `python -m docs.generate.versions build/site`."""

from __future__ import annotations

import sys
from pathlib import Path

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
{head}<title>noetl-broker: versions of the documentation</title>
<h1>noetl-broker: versions of the documentation</h1>
<ul>
{links}
</ul>
"""


def write_versions(site: Path) -> None:
    """Write `versions.html`, and `index.html`, which leads to the first version: `latest`, then the newest."""
    names = sorted((file.parent.name for file in site.glob("*/index.html")), key=_order)
    links = "\n".join(f'<li><a href="{name}/index.html">{name}</a>' for name in names)
    redirect = f'<meta http-equiv="refresh" content="0; url={names[0]}/index.html">\n'
    for file, head in (("versions.html", ""), ("index.html", redirect)):
        (site / file).write_text(PAGE.format(head=head, links=links), encoding="utf-8")


def _order(name: str) -> tuple[bool, list[int]]:
    return name != "latest", [-int(number) for number in name.removeprefix("v").split(".") if number.isdigit()]


if __name__ == "__main__":
    write_versions(Path(sys.argv[1]))
