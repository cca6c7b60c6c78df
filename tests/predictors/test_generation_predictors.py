from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from gnomon.errors import PredictorError
from gnomon.predictors import GnomonPredictor, Provenance, load_model, save_model
from gnomon.predictors.generation import (
    OperatorTable,
    OperatorTablePredictor,
    Roofline,
    RooflinePredictor,
    TablePlan,
    model_work,
)
from gnomon.records import Fingerprint, Measurement, Setting
from gnomon.search_spaces import Workload
from gnomon.search_spaces.hybrid_slm.space import HybridSLM
from gnomon.search_spaces.hybrid_slm.specs import LanguageModelSpec
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.testing import LatencyPredictorSuite


@cache
def space(phase: str = "step") -> HybridSLM:
    return HybridSLM(
        vocabulary=100,
        mixers=("attention", "sliding_window", "mamba2"),
        widths=(64, 96, 128),
        head_sizes=(16,),
        kv_heads=(2, 4),
        windows=(32,),
        ffn_ratios=(2.0,),
        blocks=(1, 2),
        meta_tokens=(0, 16),
        max_length=400,
        context=200,
        prompt_length=64,
        generated_length=33,
        phase=phase,
    )


def true_ms(spec: LanguageModelSpec, phase: str, length: int) -> float:
    """A device on which operators add up: a call, and for each operator an overhead and its work."""
    work = model_work(spec, phase, length)
    return 0.01 + 0.01 * len(spec.operators) + 2e-7 * work.macs


def vectorised_ms(genotypes) -> np.ndarray:
    """:func:`true_ms` of steps at the space's context."""
    return 0.01 + 0.01 * space().figures.operators(genotypes) + 2e-7 * space().costs(genotypes).macs


def hashed(genotypes) -> np.ndarray:
    """From -1 to 1, always the same for the same architecture."""
    return (space().algebra.hashes(genotypes) >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0


def specs(genotypes, of: HybridSLM | None = None) -> list[LanguageModelSpec]:
    of = of or space()
    return [of.spec_of(of.config(row)) for row in genotypes]


@cache
def table() -> OperatorTable:
    models = specs(space().sample(60, np.random.default_rng(3)))
    plan = TablePlan.of_models(models, {"step": (60, 120, 250), "prefill": (64, 80)}, copies=4, sparse=True)
    setting = Setting("onnxruntime", "a cpu", "made up", Workload((1,)))
    fingerprint = Fingerprint("a cpu", 2, 1 << 30, "linux", "3.11", "made up", 1, "fp32")
    return plan.table(
        Measurement(m.name, setting_of(setting, m.workload), "p", "median", "good", fingerprint, "2026", median=true(m))
        for m in plan.models
    )


def setting_of(setting: Setting, workload: Workload) -> Setting:
    return Setting(setting.device, setting.hardware, setting.runtime, workload)


def true(model) -> float:
    workload = model.workload
    return true_ms(model.spec, workload.phase, workload.context or workload.source_length)


@cache
def made(predictor_class):
    return predictor_class(space(), table()) if predictor_class is OperatorTablePredictor else predictor_class(space())


class TestOperatorTable(LatencyPredictorSuite):
    min_rank_correlation = 0.98

    @pytest.fixture
    def predictor(self):
        return made(OperatorTablePredictor)

    @pytest.fixture
    def latency_function(self):
        """Operators add up within 3 %, at a clock that is a fifth slower than that of the table."""
        return lambda genotypes: 1.2 * vectorised_ms(genotypes) * (1 + 0.03 * hashed(genotypes))


class TestRoofline(LatencyPredictorSuite):
    @pytest.fixture
    def predictor(self):
        return made(RooflinePredictor)


class TestDefault(LatencyPredictorSuite):
    @pytest.fixture
    def predictor(self):
        return made(GnomonPredictor)


@pytest.mark.parametrize("phase", ["step", "prefill", ""])
def test_populations_are_summed_like_single_models(phase) -> None:
    of = space(phase)
    rows = of.sample(12, np.random.default_rng(5))
    mean, deviation = OperatorTablePredictor(of, table()).unadapted().predict(rows)
    calls = {"step": [("step", 200, 1)], "prefill": [("prefill", 64, 1)], "": [("prefill", 64, 1), ("step", 80, 33)]}
    for row, spec, found in zip(rows, specs(rows, of), mean, strict=True):
        expected = sum(times * table().model_ms(spec, call, length) for call, length, times in calls[phase])
        assert found == pytest.approx(expected), of.config(row)
    np.testing.assert_allclose(deviation, 0.1 * mean)


def test_the_table_alone_predicts_where_operators_add_up() -> None:
    rows = space().sample(200, np.random.default_rng(6))
    mean, _ = OperatorTablePredictor(space(), table()).unadapted().predict(rows)
    np.testing.assert_allclose(mean, vectorised_ms(rows), rtol=1e-3)
    few = [true_ms(spec, "step", 200) for spec in specs(rows[:5])]
    np.testing.assert_allclose(vectorised_ms(rows[:5]), few, rtol=1e-9)


def test_a_roofline_finds_a_device_s_prices() -> None:
    predictor = RooflinePredictor(space())
    rows, rest = predictor.references(10), space().sample(200, np.random.default_rng(7))
    mean, _ = predictor.adapt(rows, vectorised_ms(rows)).predict(rest)
    np.testing.assert_allclose(mean, vectorised_ms(rest), rtol=0.02)


def test_a_roofline_at_a_given_intensity_ranks_by_it(tmp_path) -> None:
    predictor = RooflinePredictor(space(), intensity=2.0)
    rows, rest = predictor.references(5), space().sample(50, np.random.default_rng(7))
    model = predictor.adapt(rows, vectorised_ms(rows))
    costs = [Roofline(2.0).of_model(spec, "step", 200) for spec in specs(rest[:8])]
    np.testing.assert_array_equal(np.argsort(model.predict_mean(rest[:8])), np.argsort(costs))
    save_model(tmp_path, model, Provenance("setting", "predictor", (), ()))
    np.testing.assert_array_equal(load_model(tmp_path)[0].predict_mean(rest), model.predict_mean(rest))


def test_what_the_table_lacks_is_named() -> None:
    known = tuple(entry for entry in table().entries if entry.part.kind != "mamba2")
    model = OperatorTablePredictor(space(), OperatorTable(known)).unadapted()
    rows = space().sample(50, np.random.default_rng(8))
    with pytest.raises(PredictorError, match="mamba2"):
        model.predict(rows)
    without = [
        row for row, spec in zip(rows, specs(rows), strict=True) if "mamba2" not in {o.kind for o in spec.operators}
    ]
    mean, _ = model.predict(np.array(without))
    assert (mean > 0).all()


def test_a_table_is_read_from_its_file(tmp_path) -> None:
    table().save(tmp_path / "table.json")
    rows = space().sample(5, np.random.default_rng(9))
    found = OperatorTablePredictor(space(), tmp_path / "table.json").unadapted().predict_mean(rows)
    np.testing.assert_array_equal(found, OperatorTablePredictor(space(), table()).unadapted().predict_mean(rows))


@pytest.mark.parametrize("make", [RooflinePredictor, lambda s: OperatorTablePredictor(s, table())])
def test_spaces_without_language_models_are_refused(make) -> None:
    with pytest.raises(PredictorError, match="language models"):
        make(MobileCNN((1, 28, 28), 10, width=0.5, blocks=5)).references(5)
    with pytest.raises(PredictorError):
        RooflinePredictor(space(), intensity=-1.0)
