"""The wheel holds the package, whole, and nothing else."""

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_PACKAGED = {"tests", "benchmarks", "docs", "examples", "build", "dist", "runs", "outputs", "multirun"}
ROOT_FILES = {"__init__.py", "cli.py", "errors.py", "schema.py", "py.typed"}
JUNK = re.compile(r"(^|/)(\.[^/]*|__pycache__|[^/]*\.egg-info)(/|$)|\.pyc$")


@pytest.fixture(scope="session")
def builder() -> ModuleType:
    """``build_wheel.py`` beside this file, as a module."""
    spec = importlib.util.spec_from_file_location("build_wheel", Path(__file__).with_name("build_wheel.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def wheel_path(builder, tmp_path_factory) -> Path:
    return builder.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def in_wheel(wheel_path) -> set[str]:
    with zipfile.ZipFile(wheel_path) as wheel:
        return set(wheel.namelist())


@pytest.fixture(scope="session")
def package_folders() -> list[Path]:
    """Folders at the root that are sub-packages: those with an ``__init__.py`` that are not left out."""
    found = [path.parent for path in ROOT.glob("*/__init__.py")]
    return sorted(folder for folder in found if folder.name not in NOT_PACKAGED and not folder.name.startswith("."))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_only_gnomon_at_the_top(in_wheel):
    tops = {PurePosixPath(name).parts[0] for name in in_wheel}
    assert {re.sub(r"-\d.*\.dist-info$", ".dist-info", top) for top in tops} == {"gnomon", "gnomon_nas.dist-info"}


def test_tests_benchmarks_docs_stay_out(in_wheel):
    assert {name for name in in_wheel if PurePosixPath(name).parts[1] in NOT_PACKAGED} == set()


def test_every_file_of_every_sub_package_is_in(in_wheel, package_folders):
    """Modules, configs, templates: whatever lies in a sub-package's folder must reach the user."""
    expected = {
        f"gnomon/{relative}"
        for folder in package_folders
        for path in folder.rglob("*")
        if path.is_file() and not JUNK.search(relative := path.relative_to(ROOT).as_posix())
    }
    assert len(expected) > 50
    assert expected - in_wheel == set()


def test_the_root_modules_and_the_type_marker_are_in(in_wheel):
    modules = {path.name for path in ROOT.glob("*.py")} | {"py.typed"}
    assert modules == ROOT_FILES, "a new module at the root: is it meant to be part of the package?"
    assert {f"gnomon/{name}" for name in ROOT_FILES} <= in_wheel


def test_configs_and_the_report_template_are_in(in_wheel):
    for group in ("space", "device", "task", "quality", "predictor", "strategy", "objective", "experiment"):
        assert any(re.fullmatch(rf"gnomon/conf/{group}/.+\.yaml", name) for name in in_wheel), group
    assert any(re.fullmatch(r"gnomon/reports/.+\.html\.j2", name) for name in in_wheel)


def test_the_package_list_is_in_step_with_the_folders(package_folders):
    folders = {
        ".".join(("gnomon", *path.parent.relative_to(ROOT).parts))
        for folder in package_folders
        for path in folder.rglob("__init__.py")
    }
    listed = project()["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == folders | {"gnomon"}


def test_a_folder_of_modules_is_a_package(package_folders):
    """A folder of modules without ``__init__.py`` would silently stay out of the wheel."""
    with_modules = {path.parent for folder in package_folders for path in folder.rglob("*.py")}
    assert {folder for folder in with_modules if not (folder / "__init__.py").is_file()} == set()


def test_every_room_has_an_import_rule(package_folders):
    contracts = project()["tool"]["importlinter"]["contracts"]
    ruled = {module for contract in contracts for module in contract["source_modules"]}
    free = {"gnomon.commands", "gnomon.testing"}
    assert {f"gnomon.{folder.name}" for folder in package_folders} - free == ruled - {"gnomon.errors", "gnomon.schema"}


def test_the_console_script_and_the_license_are_in(wheel_path, in_wheel):
    with zipfile.ZipFile(wheel_path) as wheel:
        [entry_points] = [name for name in in_wheel if name.endswith("/entry_points.txt")]
        assert "gnomon = gnomon.cli:main" in wheel.read(entry_points).decode()
    assert any(name.endswith("/LICENSE") for name in in_wheel)


def test_every_dependency_has_an_exact_version_in_the_constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {line.partition("==")[0].lower(): line for line in lines if line and not line.startswith("#")}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][^\s;]*", line) for line in pins.values())
    extras = project()["project"]["optional-dependencies"]
    wanted = [*project()["project"]["dependencies"], *extras["dev"], *extras["demo"], *extras["tables"]]
    names = {re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower() for requirement in wanted}
    assert names - set(pins) == set()


def test_the_source_distribution_builds_the_same_wheel(builder, in_wheel, tmp_path):
    sources = builder.copy_sources(ROOT, tmp_path / "sources")
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "Makefile", ".ci/run"} <= inside
    assert {"tests/conftest.py", "tests/packaging/test_wheel.py", "benchmarks/tables.py"} <= inside
    with zipfile.ZipFile(builder.build_wheel(tmp_path / "wheel", archive)) as wheel:
        assert set(wheel.namelist()) == in_wheel
