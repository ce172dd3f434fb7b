"""The fixture with a real NoETL server and worker, if there is a checkout."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.real import RealNoETL, home, real_noetl


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNoETL]:
    """Yield server and worker for the tests of a module; skip without a checkout."""
    found = home()
    if isinstance(found, str):
        pytest.skip(found)
    with real_noetl(*found, tmp_path_factory.mktemp("noetl")) as both:
        yield both
