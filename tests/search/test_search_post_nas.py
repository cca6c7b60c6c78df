"""A whole search from a trained language model: replacements learn, an integer program chooses, what it found ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gnomon.conf.compose import compose
from gnomon.records import StudySummary
from gnomon.search.setup import build
from gnomon.search.study import run_search
from gnomon.search.trained_model import recipe
from gnomon.search_spaces.hybrid_slm.model import LanguageModel
from gnomon.search_spaces.hybrid_slm.saved import load_language_model, save_language_model
from gnomon.search_spaces.hybrid_slm.sizes import MixerSizes
from gnomon.search_spaces.hybrid_slm.specs import FFN, LanguageModelSpec, Operator
from tests.search.doubles import study_doubles as doubles

LENGTH = 32
SIZES = MixerSizes(width=16, heads=2, kv_heads=2, head_size=8, window=16, max_length=LENGTH + 6)


def words(folder: Path) -> list[str]:
    return [
        "space=mixer_replacement", f"space.model={folder / 'parent'}", f"space.context={LENGTH}",
        "space.mixers=[{kind: sliding_window, window: 2}]", "task=text_files", f"task.data.path={folder / 'texts'}",
        f"task.length={LENGTH}", f"task.tokens_per_epoch={10 * 8 * LENGTH}", "task.ranges=[]", "task.scored=8",
        "task.scored_test=8", "task.scored_onnx=2", "task.fractions=[0.8,0.1,0.1]", "quality=blockwise",
        "quality.epochs=2", "strategy=integer_program", "device=torch_cpu", "protocol=quick",
        "predictor=bayesian_linear", "objective.metrics=[quality]", "objective.latency=500%",
        "objective.confidence=0.5", "study.name=found", f"study.dir={folder}", "study.workers=2",
        "study.references=5", "study.refinements=0", "study.evaluations=5", "study.batch=2",
        "finalise.budget=1", "finalise.top_k=2", "finalise.max_models=2",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With texts and an untrained parent."""
    folder, rng = tmp_path_factory.mktemp("post_nas"), np.random.default_rng(0)
    (folder / "texts").mkdir()
    for number in range(60):
        text = " ".join(str(value) for value in rng.integers(0, 10**6, 60))
        letters = str.maketrans("0123456789", "abcdefghij")
        (folder / "texts" / f"{number}.txt").write_text(text.translate(letters))
    operators = (Operator("attention", SIZES), Operator(FFN, SIZES, 24)) * 3
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LanguageModel(LanguageModelSpec(260, 16, operators, max_length=LENGTH))
    save_language_model(model, folder / "parent")
    return folder


@pytest.fixture(scope="module")
def summary(folder: Path) -> StudySummary:
    return run_search(compose("search", words(folder)), doubles.Silence())[0]


@pytest.mark.slow
def test_what_is_found_ships_with_the_parents_frozen_weights(folder: Path, summary: StudySummary) -> None:
    """Each is trained in a process of its own, which takes what replacements learnt from the study's folder."""
    parent = load_language_model(folder / "parent")
    assert len(summary.models) == 2
    for model in summary.models:
        assert model.accepted, model.reason
        found = load_language_model(folder / "found" / model.folder)
        assert [operator.kind for operator in found.spec.operators] == [
            kind
            for choice in model.config.values()
            for kind in ("attention" if choice == "keep" else "sliding_window", FFN)
        ]
        for number in (1, 3, 5):
            pairs = zip(found.branches[number].parameters(), parent.branches[number].parameters(), strict=True)
            assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
        assert torch.equal(found.embedding.weight, parent.embedding.weight)
        assert not torch.equal(found.branches[0].body.q.weight, parent.branches[0].body.q.weight)


@pytest.mark.slow
def test_the_reference_and_every_single_change_come_first(summary: StudySummary) -> None:
    changes = [trial.key.replace(".", "").count("1") for trial in summary.trials[:4]]
    assert changes == [0, 1, 1, 1]
    assert summary.shared_training is not None
    assert len(summary.shared_training.errors) == 3
    assert set(summary.shared_training.curves) == {"parent", "all_sliding_window_window2"}


def test_models_taught_otherwise_are_other_models(folder: Path) -> None:
    """A finished model is not taken for one whose replacements learnt longer."""
    one, other = (build(compose("search", [*words(folder), f"quality.epochs={epochs}"])) for epochs in (2, 3))
    assert recipe(one) != recipe(other)
