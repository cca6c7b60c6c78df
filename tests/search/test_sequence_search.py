"""Whole searches for transformers: supernet, HAT's evolution, training, export, verification, translation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gnomon import cli
from gnomon.conf.compose import compose
from gnomon.export import load_model, read_card, read_metadata
from gnomon.records import StudySummary
from gnomon.reports import write_report
from gnomon.search.study import run_search
from gnomon.search.summary import SUMMARY_FILE, read_summary
from gnomon.tasks.sequences.translator import Translator
from tests.search.doubles import study_doubles as doubles

LETTERS = "abcde"
OVERRIDES = [
    "space=hat",
    "space.widths=[16,24]",
    "space.ffn_widths=[16,32]",
    "space.qkv_width=16",
    "space.encoder_layers=[1,2]",
    "space.decoder_layers=[1,2]",
    "space.attended=[1,2]",
    "space.dropout=0.0",
    "task=tsv",
    "task.vocabulary_size=280",
    "task.max_tokens=16",
    "task.metric=likelihood",
    "task.training.lr=0.01",
    "task.training.batch_size=16",
    "quality=supernet",
    "quality.epochs=2",
    "quality.rule.random=0",
    "strategy=hat_evolution",
    "strategy.population=3",
    "strategy.parents=2",
    "strategy.mutants=2",
    "strategy.crossovers=1",
    "objective.metrics=[quality]",
    "objective.latency=300%",  # so small a network is measured roughly on a busy machine
    "objective.confidence=0.5",
    "protocol=quick",
    "predictor=macs",
    "study.name=words",
    "study.workers=1",
    "study.references=4",
    "study.refinements=0",
    "study.evaluations=6",
    "study.batch=3",
    "finalise.top_k=1",
    "finalise.max_models=2",
    "finalise.budget=20",
]


def search(folder: Path, display: doubles.Silence | None = None) -> StudySummary:
    """Letters to their names in capitals, one after the other."""
    lines = [f"{a} {b} {c}\t{a.upper()} {b.upper()} {c.upper()}" for a in LETTERS for b in LETTERS for c in LETTERS]
    (folder / "pairs.tsv").write_text("\n".join(lines), encoding="utf-8")
    words = [*OVERRIDES, f"task.data.path={folder / 'pairs.tsv'}", f"study.dir={folder}"]
    return run_search(compose("search", words), display or doubles.Silence())[0]


class KilledWhileVerifying(doubles.Silence):
    def on_model(self, text: str, done: int, total: int) -> None:
        if text == "verifying":
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study; it was stopped after the first model was trained, and went on."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.raises(KeyboardInterrupt):
        search(folder, KilledWhileVerifying())
    (trained,) = folder.glob("words/models/*/trained.json")
    before = trained.stat().st_mtime_ns
    search(folder)
    assert trained.stat().st_mtime_ns == before, "the finished model was trained again"
    return folder / "words"


@pytest.fixture
def summary(study: Path) -> StudySummary:
    return read_summary(study / SUMMARY_FILE)


def model_folder(study: Path, summary: StudySummary) -> Path:
    return study / next(model for model in summary.models if model.accepted).folder


def test_a_verified_model_of_two_graphs(study: Path, summary: StudySummary) -> None:
    model = next(model for model in summary.models if model.accepted)
    assert model.files == ("encoder.onnx", "step.onnx")
    assert model.measurement is not None
    assert set(model.measurement.parts) == {"encoder", "step"}
    assert summary.limit_ms is not None
    assert model.measurement.latency_ms <= summary.limit_ms
    assert {"likelihood", "loss", "bleu", "chrf"} <= set(model.test)


def test_its_folder_is_all_that_it_takes(study: Path, summary: StudySummary, tmp_path: Path) -> None:
    folder = model_folder(study, summary)
    names = {path.name for path in folder.iterdir()}
    assert {"encoder.onnx", "step.onnx", "tokenizers.json", "card.md", "weights.safetensors"} <= names
    card = (folder / "card.md").read_text()
    assert "gnomon translate from=." in card
    assert "tokens read, tokens written, beams" in card
    for path in (folder / "card.json", *folder.glob("*.onnx")):
        assert b"Labels" not in path.read_bytes()
    assert read_card(folder).metadata.labels == read_metadata(folder / "step.onnx").labels == ()


def test_the_code_in_its_card_works(study: Path, summary: StudySummary) -> None:
    folder = model_folder(study, summary)
    found = re.search(
        r"## Use it with ONNX Runtime\n.*?```python\n(.*?)```", (folder / "card.md").read_text(), re.DOTALL
    )
    assert found
    result = subprocess.run([sys.executable, "-c", found[1]], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_it_translates_like_torch(study: Path, summary: StudySummary, capsys: pytest.CaptureFixture[str]) -> None:
    folder, texts = model_folder(study, summary), ["a b c", "d e a", "e e e"]
    assert cli.main(["translate", f"from={folder}", *texts]) == 0
    written = capsys.readouterr().out.splitlines()
    assert written == Translator.of_folder(folder, load_model(folder)).translate(texts)
    assert all(line.isupper() for line in written), written


def test_the_report_tells_lengths_parts_and_other_scores(study: Path) -> None:
    page = write_report(study).read_text()
    for text in ("tokens written", "test chrf", "encoder 0.", "tokenizers.json", "step.onnx"):
        assert text in page, text
