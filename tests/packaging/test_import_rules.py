"""The import rules say what CONTRIBUTING.md says, and a broken one is found."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FREE = {"commands", "testing", "cli"}


def documented() -> dict[str, set[str]]:
    """The table of CONTRIBUTING.md: ``{room: rooms it may import}``."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    rooms: dict[str, set[str]] = {}
    for room, allowed in rows:
        rooms[room] = set(rooms) if allowed == "all of the above" else set(re.findall(r"`(\w+)`", allowed))
    return rooms


def contracts() -> list[dict]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def short(modules: list[str]) -> set[str]:
    return {module.removeprefix("gnomon.") for module in modules}


def test_the_rules_are_the_documented_table():
    rooms = documented()
    assert set(rooms) >= {"search_spaces", "records", "export", "devices", "predictors", "tasks", "search", "reports"}
    ruled = {}
    for contract in contracts():
        for room in short(contract["source_modules"]):
            ruled[room] = short(contract["forbidden_modules"])
    for room, allowed in rooms.items():
        assert ruled.pop(room) == (set(rooms) | FREE) - allowed - {room}, room
    assert ruled == {"errors": set(rooms) | FREE, "schema": set(rooms) | FREE}


@pytest.fixture
def house(tmp_path) -> Path:
    """A package with the rooms of gnomon, all empty, and this project's rules."""
    package = tmp_path / "gnomon"
    for room in (*documented(), "commands", "testing"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").write_text("", encoding="utf-8")
    for module in ("__init__", "cli", "errors", "schema"):
        (package / f"{module}.py").write_text("", encoding="utf-8")
    return package


def lint(house: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "--no-logo"]
    # The house's own folder comes first on the path, before the editable install's import hook.
    return subprocess.run([*command, *options], cwd=house.parent, capture_output=True, text=True, timeout=60)


def test_an_empty_house_keeps_the_rules(house):
    (house / "search" / "loop.py").write_text("from ..devices import x\nfrom .. import tasks\n", encoding="utf-8")
    (house / "reports" / "html.py").write_text("from ..records import x\n", encoding="utf-8")
    (house / "cli.py").write_text("from .search import loop\n", encoding="utf-8")
    done = lint(house)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("reports/html.py", "from ..search import run"),
        (
            "search_spaces/base.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..records import store",
        ),
        ("predictors/linear.py", "def f():\n    from ..devices import runner"),
        ("search/loop.py", "from ..cli import main"),
        ("errors.py", "from .records import store"),
    ],
)
def test_a_broken_rule_is_found(house, file, line):
    (house / file).write_text(f"{line}\n", encoding="utf-8")
    done = lint(house)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout
