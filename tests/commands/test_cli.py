"""What a person meets on the command line: help, clear errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gnomon import cli


def run(*words: str) -> tuple[int, str, str]:
    process = subprocess.run([sys.executable, "-m", "gnomon.cli", *words], capture_output=True, text=True)
    return process.returncode, process.stdout, process.stderr


def test_help_lists_commands_and_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("search", "measure", "export", "report", "status", "devices", "spaces", "import"):
        assert f"\n  {name} " in text
    for group in ("space", "device", "task", "quality", "predictor", "strategy", "objective", "experiment"):
        assert f"\n  {group} " in text


def test_help_of_search_names_the_keys_users_rely_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "--help"]) == 0
    text = capsys.readouterr().out
    for key in (
        "objective.latency_ms",
        "objective.latency",
        "finalise.top_k",
        "study.name",
        "study.workers",
        "study.resume",
    ):
        assert f"\n{key}:" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["serch"], "serch"),
        (["search", "space=nothing"], "mobile_cnn"),
        (["search", "study.evaluatons=3"], "evaluatons"),
        (["search", "study.evaluations=many"], "many"),
        (["search", "study.evaluations=0"], "1 or more"),
        (["search", "study.seed=-1"], "0 or more"),
        (["search", "study.name=a?b"], "letters, digits"),
        (["search", "study.references=2"], "4 or more"),
        (["search", "task=digits", "finalise.top_k=0"], "1 or more"),
        (["search", "task=digits", "finalise.budget=-1"], "above 0"),
        (["search", "task=digits", "study.storage=postgresql://nobody@localhost/none"], "gnomon-nas[postgres]"),
        (["search", "task._target_=gnomon.tasks.nosuch.X"], "nosuch"),
        (["search", "objective.latency_ms=-2"], "> 0, in ms"),
        (["search", "objective.latency=fast"], "60%"),
        (["search", "objective.latency_ms=1", "objective.latency=50%"], "not both"),
        (["search", "space.blocks=99"], "space.blocks=99"),
        (["search", "space.blocks=many"], "space.blocks='many': wrong type (allowed: an integer or"),
        (["search", "space.widths=[]", "space=hybrid_slm", "task=digits"], "space.widths=[]"),
        (["search", "objective.latency_ms=true"], "objective.latency_ms=True"),
        (["search", "objective.metrics=quality"], "Write [quality]."),
        (["search", "objective.latency=60%", "objective.reference=nope", "task=digits"], "objective.reference='nope'"),
        (["search", "strategy.solve_last=width", "strategy=aging_evolution", "task=digits"], "strategy.solve_last="),
        (["search", "strategy.reference=nope", "strategy=integer_program", "task=digits"], "strategy.reference="),
        (["search", "device.threads=0"], "threads"),
        (["search", "device=torch_cuda", "task=digits"], "CUDA"),
        (["search", "task=npz", "task.data.path=/nowhere.npz"], "/nowhere.npz"),
        (["search", "task._target_=os.system"], "plugins"),
        (["search", "strategy=cmaes"], "mnasnet_soft"),
        (["search", "--fast"], "--plan"),
        (["spaces", "space=hybrid_slmm"], "hybrid_slm_free"),
        (["search", "fast"], "key=value"),
        (["search", "study.resume=/nowhere"], "/nowhere"),
        (["status", "dir=/nowhere"], "gnomon search"),
        (["measure", "from=/nowhere.onnx"], "/nowhere.onnx"),
        (["measure"], "architecture"),
        (["measure", "reuse=off"], "reuse='off'"),
        (["export", "architecture=resnet"], "mobilenet_v2"),
        (["import", "data=hwnas360", "from=/nowhere"], "/nowhere"),
        (["spaces", "space=mobile_cnn", "space.input_shape=[1,28]"], "input_shape"),
    ],
)
def test_a_mistake_gets_one_line_that_says_what_is_allowed(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = cli.main(words)
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.startswith("gnomon: ")
    assert len(captured.err.strip().splitlines()) == 1, captured.err
    assert says in captured.err


def test_an_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "space=nothing", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["kind"] == "ConfigError"


def test_a_constraint_that_cannot_be_met_is_diagnosed(recorded_study: list[str]) -> None:
    code, _, error = run("search", *recorded_study, "objective.latency_ms=0.01")
    assert code == 2
    assert "no architecture" in error
    assert "Decisions that cost most" in error


def test_a_damaged_study_is_said_and_kept(recorded_study: list[str], tmp_path: Path) -> None:
    ledger = tmp_path / "runs" / "here" / "ledger.sqlite"
    ledger.parent.mkdir(parents=True)
    ledger.write_bytes(b"not a database at all, but somebody's only copy")
    code, _, error = run("search", *recorded_study)
    assert code == 2
    assert "cannot be read or written" in error.splitlines()[-1]
    assert ledger.read_bytes().startswith(b"not a database")


def test_a_folder_that_cannot_be_written_is_said(recorded_study: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, error = run("search", *recorded_study, f"study.dir={tmp_path}/file/runs")
    assert code == 2
    assert "cannot be read or written" in error
    assert "study.dir" in error


def test_missing_data_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNOMON_DATA", str(tmp_path))
    code, _, error = run("search", "experiment=nasbench201_recorded", f"study.dir={tmp_path}")
    assert code == 2
    assert "GNOMON_DATA" in error


def test_a_recorded_search_status_report_and_resume(recorded_study: list[str], tmp_path: Path) -> None:
    code, out, error = run("search", *recorded_study, "--json")
    assert code == 0, error
    result = json.loads(out)
    folder = tmp_path / "runs" / "here"
    assert Path(result["report"]) == folder / "report.html"
    assert result["spend"]["evaluations"] == 12
    assert any(model["on_front"] for model in result["models"])
    code, out, _ = run("status", f"dir={folder.parent}", "name=here", "--json")
    assert code == 0
    status = json.loads(out)
    assert status["phase"] == "finished"
    assert status["counts"]["evaluated"] == 12
    (folder / "report.html").unlink()
    assert run("report", f"from={folder}")[0] == 0
    assert (folder / "report.html").is_file()
    code, out, error = run("search", f"study.resume={folder}", "study.evaluations=15", "--json")
    assert code == 0, error
    assert json.loads(out)["spend"]["evaluations"] == 15
    assert run("search", f"study.resume={folder}", "strategy=random")[0] == 2


def test_a_users_own_options_and_classes(
    recorded_study: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf" / "strategy").mkdir(parents=True)
    (tmp_path / "conf" / "strategy" / "mine.yaml").write_text("_target_: my_search.Mine\n")
    (tmp_path / "my_search.py").write_text(
        "from gnomon.search.strategies.random import RandomStrategy\nclass Mine(RandomStrategy):\n    name = 'mine'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    words = ["search", *recorded_study, "strategy=mine", "--config-dir", str(tmp_path / "conf")]
    code, _, error = run(*words)
    assert code == 2
    assert "plugins=[…]" in error
    code, out, error = run(*words, "plugins=[my_search]", "--json")
    assert code == 0, error
    assert json.loads(out)["strategy"] == "mine"
    own = [f"hydra.searchpath=[file://{tmp_path}/conf]", "plugins=[my_search]"]
    assert run("search", *recorded_study, "strategy=mine", "--plan", *own)[0] == 0


def test_devices_that_cannot_run_say_what_to_install(capsys, monkeypatch):
    command = "no converter: python -m venv /a/long/path/to/an/environment && /a/long/path/bin/python -m pip install it"
    monkeypatch.setattr("gnomon.devices.torch_cuda.TorchCUDADevice.unavailable", classmethod(lambda cls: command))
    assert cli.main(["devices"]) == 0
    assert f"  torch_cuda: {command}\n" in capsys.readouterr().out
