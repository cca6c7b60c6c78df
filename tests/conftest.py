"""What every test gets: one thread, no network, temporary studies, published tables if they are there."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Before any test imports torch or numpy: tests share the machine, and child processes inherit this.
for _threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_threads] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of published tables: ``GNOMON_DATA``, by default ``../shared/data``; skips without it."""
    folder = Path(os.environ.get("GNOMON_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the published tables: {folder} does not exist (set GNOMON_DATA)")
    return folder.resolve()


@pytest.fixture
def study_dir(tmp_path: Path) -> Path:
    """An empty folder for one study."""
    folder = tmp_path / "study"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Torch on one thread, also after a test that asked for more."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails at once, and says where it wanted to go."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            raise OSError(f"tests have no network, and this one wanted {address!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def _one_name_for_each_file() -> Iterator[None]:
    """At the end of the session: no module file of the project was loaded under two names.

    The root of the repository is the package, so with the root on ``sys.path`` its modules can be imported
    as ``gnomon.records`` and as ``records``: two copies of each class, and ``isinstance`` says no.
    Only the root ``__init__.py`` may: pytest imports it under the checkout's name, and it loads nothing.
    """
    yield
    twice = loaded_twice(dict(sys.modules), ROOT)
    assert not twice, f"module files loaded under two names: {twice}"


def loaded_twice(modules: Mapping[str, ModuleType], root: Path) -> dict[str, list[str]]:
    """Files of the project that are loaded under more than one name: ``{file: names}``."""
    names: dict[str, list[str]] = {}
    for name, module in modules.items():
        file = Path(getattr(module, "__file__", None) or "/")
        if name == "__main__" or not file.is_relative_to(root):
            continue
        relative = str(file.relative_to(root))
        if relative != "__init__.py" and not relative.startswith("."):  # .venv is below the root
            names.setdefault(relative, []).append(name)
    return {file: sorted(found) for file, found in names.items() if len(found) > 1}
