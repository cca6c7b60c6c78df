"""What loads when: `import gnomon` and `gnomon --help` are for impatient people."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import gnomon

HEAVY = {"torch", "hydra", "omegaconf", "onnx", "onnxruntime", "sklearn", "scipy", "matplotlib", "optuna", "pandas"}
CONTRACTS = ("search_spaces", "records", "devices", "predictors", "tasks", "search", "errors", "schema")


def modules_after(code: str, cwd: Path) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``code``."""
    # The last line only: the code may print, too.
    script = (
        f"import sys, json\n{code}\nprint(); print(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_gnomon_loads_nothing_heavy(tmp_path):
    assert modules_after("import gnomon; gnomon.__version__; dir(gnomon)", tmp_path) & (HEAVY | {"numpy"}) == set()


@pytest.mark.parametrize("name", CONTRACTS)
def test_contracts_do_not_import_torch(name, tmp_path):
    loaded = modules_after(f"import gnomon.{name}", tmp_path)
    assert loaded & {"torch", "onnx", "onnxruntime", "matplotlib"} == set()


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"]], ids=" ".join)
def test_help_loads_nothing_heavy(arguments, tmp_path):
    """The console script's own road: `gnomon.cli.main` as pip wrote it into pyproject's entry point."""
    code = f"""
sys.argv = ["gnomon", *{arguments!r}]
from gnomon.cli import main
try:
    code = main()
except SystemExit as end:
    code = end.code
assert code in (None, 0), code
"""
    assert modules_after(code, tmp_path) & {"torch", "onnx", "onnxruntime", "sklearn", "matplotlib"} == set()


def test_help_of_the_module_and_of_the_script_agree(tmp_path):
    commands = ([sys.executable, "-m", "gnomon.cli"], [str(Path(sys.executable).with_name("gnomon"))])
    shown = [
        subprocess.run([*command, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        for command in commands
    ]
    assert [done.returncode for done in shown] == [0, 0], [done.stderr for done in shown]
    assert shown[0].stdout == shown[1].stdout
    for command in ("search", "measure", "export", "report", "status", "devices", "spaces", "import"):
        assert command in shown[0].stdout


def test_public_names_are_there():
    for name in gnomon.__all__:
        assert getattr(gnomon, name) is not None
    assert set(gnomon.__all__) <= set(dir(gnomon))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        gnomon.no_such_name  # noqa: B018


def test_the_installed_version_is_the_one_in_the_source():
    assert gnomon.__version__ == importlib.metadata.version("gnomon-nas")
