"""The files that docs/extending.md shows are complete: they pass the conformance suites and search."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
BLOCK = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, as a user would have written them."""
    folder = tmp_path_factory.mktemp("my_project")
    for name, content in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (folder / "gnomon_extras" / "__init__.py").touch()
    return folder


def in_project(project: Path, *command: str, limit_s: float = 280) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True, timeout=limit_s
    )


def test_every_file_of_the_tree_is_shown(project: Path) -> None:
    shown = {name for name, _ in BLOCK.findall(PAGE.read_text(encoding="utf-8"))}
    kinds = ("space", "device", "predictor", "strategy", "task")
    assert {f"gnomon_extras/{name}.py" for name in (*kinds[:4], "training")} <= shown
    assert {Path(name).parts[1] for name in shown if name.startswith("conf/")} == set(kinds)


def test_own_options_are_found(project: Path) -> None:
    run = in_project(
        project, "-m", "gnomon.cli", "spaces", "--config-dir", "conf", "plugins=[gnomon_extras]", "space=plain_cnn"
    )
    assert run.returncode == 0, run.stderr
    assert "plain_cnn" in run.stdout
    assert "middle" in run.stdout
    run = in_project(project, "-m", "gnomon.cli", "devices", "--config-dir", "conf")
    assert "onnx_reference" in run.stdout, run.stderr


def test_hydras_searchpath_does_the_same(project: Path) -> None:
    words = ["hydra.searchpath=[file://conf]", "plugins=[gnomon_extras]", "space=plain_cnn"]
    run = in_project(project, "-m", "gnomon.cli", "spaces", *words)
    assert run.returncode == 0, run.stderr
    assert "plain_cnn" in run.stdout


def test_packages_that_are_not_named_are_not_loaded(project: Path) -> None:
    run = in_project(project, "-m", "gnomon.cli", "spaces", "--config-dir", "conf", "space=plain_cnn")
    assert run.returncode == 2
    assert "plugins" in run.stderr


@pytest.mark.slow
def test_conformance_suites_pass(project: Path) -> None:
    run = in_project(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_extras.py")
    assert run.returncode == 0, run.stdout[-4000:]
    assert re.search(r"\d{2,} passed", run.stdout)


@pytest.mark.slow
def test_all_five_search_together(project: Path) -> None:
    words = PAGE.read_text(encoding="utf-8").split("All five together:")[1].split("```")[1]
    command = words.removeprefix("sh\n").replace("\\\n", " ").replace("'", "").split()
    assert command[:2] == ["gnomon", "search"]
    run = in_project(project, "-m", "gnomon.cli", *command[1:], "study.name=mine", "study.workers=1")
    assert run.returncode == 0, run.stderr[-4000:]
    assert (project / "runs" / "mine" / "report.html").is_file()
    assert list((project / "runs" / "mine" / "models").glob("*/model.onnx"))
