"""The modules that a compiled wheel has as machine code, and what mypyc cannot compile in them."""

from __future__ import annotations

import builtins
import inspect
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from noetl_broker.compiled_form import installed_form
from tests.packaging.wheels import PATIENCE_SECONDS
from tests.test_tidy import ROOT

HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"][
    "wheel"
]
MODULES: list[str] = HOOK["hooks"]["custom"]["modules"]
BASES = (object, tuple, Exception)


def compiled_files() -> list[Path]:
    """Give the sources of the modules that are compiled."""
    return sorted({file for pattern in MODULES for file in (ROOT / "src").glob(pattern)})


def _compiled_modules() -> Iterator[ModuleType]:
    for file in compiled_files():
        name = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts)
        yield import_module(name.removesuffix(".__init__"))


def _classes() -> Iterator[type]:
    for module in _compiled_modules():
        yield from (of for of in vars(module).values() if inspect.isclass(of) and of.__module__ == module.__name__)


def test_each_pattern_names_a_module() -> None:
    """A renamed module is compiled under its new name, or the list says why not."""
    assert [pattern for pattern in MODULES if not list((ROOT / "src").glob(pattern))] == []


def test_no_compiled_class_has_an_interpreted_base() -> None:
    """Mypyc gives it the memory of its own fields only: the process would die later, somewhere else."""
    compiled = set(_classes())
    wrong = [of for of in compiled if not any(base in BASES or base in compiled for base in of.__bases__)]
    assert wrong == []


def test_the_fields_of_compiled_classes_name_types_that_exist_at_run_time() -> None:
    """Mypyc evaluates the annotations of named tuples and dataclasses, and knows no `object` there."""
    lacking = [
        f"{of.__name__}.{field}: {annotation}"
        for of in _classes()
        if hasattr(of, "_fields") or hasattr(of, "__dataclass_fields__")
        for field, annotation in inspect.get_annotations(of).items()
        if not _is_there(getattr(annotation, "__forward_arg__", annotation), sys.modules[of.__module__])
    ]
    assert lacking == []


def _is_there(annotation: object, module: ModuleType) -> bool:
    """Tell whether mypyc finds the type that it evaluates: of a generic one the outer, of a union none."""
    if not isinstance(annotation, str) or "|" in annotation:
        return True
    name = annotation.partition("[")[0].rpartition(".")[2]  # compiled, a class further below has its module
    return name != "object" and (hasattr(module, name) or hasattr(builtins, name))


def test_each_module_of_the_core_is_compiled() -> None:
    """Also one in a new folder."""
    core = ROOT / "src" / "noetl_broker" / "broker"
    assert {*core.rglob("*.py")} - {*compiled_files()} == set()


@pytest.mark.skipif(
    installed_form() == "plain", reason="the plain form is installed: make test COMPILED=1 has the other"
)
def test_each_compiled_module_is_machine_code() -> None:
    """Of the installed wheel; no module of the checkout comes before it."""
    assert [of.__name__ for of in _compiled_modules() if not str(of.__file__).endswith(".so")] == []


@pytest.mark.parametrize(
    "target, compiler, said",
    [
        ("wheel", "no-such-compiler", "there is no C compiler `no-such-compiler`"),
        ("wheel:editable", "cc", "an editable installation cannot be compiled"),
    ],
)
def test_a_build_that_cannot_compile_says_why(
    tree: Path, tmp_path: Path, target: str, compiler: str, said: str
) -> None:
    """It does not give a plain wheel instead."""
    answer = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(tmp_path / "wheel")],
        cwd=tree,
        env={**os.environ, "HATCH_BUILD_HOOK_ENABLE_CUSTOM": "true", "CC": compiler},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert (answer.returncode, said in answer.stderr) == (1, True), answer.stderr
    assert "Traceback" not in answer.stderr
