"""The root of the repository is the package: nothing may be loaded under a second name."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def loaded_twice():
    conftests = [m for m in sys.modules.values() if getattr(m, "__file__", None) == str(ROOT / "tests" / "conftest.py")]
    return conftests[0].loaded_twice


def module(name: str, file: Path) -> ModuleType:
    made = ModuleType(name)
    made.__file__ = str(file)
    return made


def test_a_second_name_is_found(loaded_twice, tmp_path):
    file = tmp_path / "records" / "table.py"
    modules = {name: module(name, file) for name in ("gnomon.records.table", "records.table")}
    modules["gnomon.errors"] = module("gnomon.errors", tmp_path / "errors.py")
    assert loaded_twice(modules, tmp_path) == {"records/table.py": ["gnomon.records.table", "records.table"]}


def test_files_outside_the_project_do_not_count(loaded_twice, tmp_path):
    files = [tmp_path.parent / "other.py", tmp_path / ".venv" / "x.py", tmp_path / "__init__.py"]
    modules = {f"{way}{n}": module("any", file) for n, file in enumerate(files) for way in "ab"}
    assert loaded_twice(modules, tmp_path) == {}


def test_a_real_second_import_is_found(loaded_twice, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    first = importlib.import_module("gnomon.errors")
    second = importlib.import_module("errors")
    try:
        assert first.GnomonError is not second.GnomonError
        assert loaded_twice(dict(sys.modules), ROOT)["errors.py"] == ["errors", "gnomon.errors"]
    finally:
        del sys.modules["errors"]


def test_so_far_no_file_has_two_names(loaded_twice):
    assert loaded_twice(dict(sys.modules), ROOT) == {}


def test_the_root_package_loads_nothing_when_imported_under_another_name():
    """pytest imports the root ``__init__.py`` as the checkout's name; that must not drag a second copy in."""
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location(
        "a_checkout_name", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    again = importlib.util.module_from_spec(spec)
    sys.modules["a_checkout_name"] = again
    try:
        spec.loader.exec_module(again)
        assert {name for name in sys.modules if name.startswith("a_checkout_name.")} == set()
        assert set(sys.modules) - before == {"a_checkout_name"}
    finally:
        del sys.modules["a_checkout_name"]
