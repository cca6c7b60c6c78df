from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from gnomon.errors import MeasurementError, PredictorError, SchemaError
from gnomon.predictors.generation import (
    DecodeForm,
    Entry,
    GenerationForm,
    OperatorTable,
    Part,
    PrefillForm,
    Roofline,
    TablePlan,
    fit_decode,
    fit_prefill,
    generation_metrics,
    model_work,
    ms_per_token,
    peak_bytes,
    peak_memory_bytes,
    state_bytes,
    state_bytes_per_token,
    time_to_first_token_ms,
    tokens_per_s,
    weight_bytes,
)
from gnomon.records import Fingerprint, Measurement, Setting
from gnomon.search_spaces import Workload
from gnomon.search_spaces.hybrid_slm.sizes import MixerSizes
from gnomon.search_spaces.hybrid_slm.specs import LanguageModelSpec, Operator

FINGERPRINT = Fingerprint("a cpu", 2, 1 << 30, "linux", "3.11", "made up", 1, "fp32")
STEP = Workload((1,), context=100, phase="step")
PREFILL = Workload((64,), source_length=64, phase="prefill")


def sizes(width: int) -> MixerSizes:
    return MixerSizes(width=width, heads=width // 16, kv_heads=2, head_size=16, window=32, max_length=256)


def operators(width: int) -> tuple[Operator, ...]:
    mixer = sizes(width)
    return (
        Operator("attention", mixer),
        Operator("ffn", mixer, ffn_width=3 * width),
        Operator("sliding_window", mixer),
    )


def model(width: int = 64, picks: tuple[int, ...] = (0, 1, 2, 1), **more: object) -> LanguageModelSpec:
    made = operators(width)
    return LanguageModelSpec(200, width, tuple(made[pick] for pick in picks), **{"max_length": 256, **more})


def measured(name: str, workload: Workload, latency_ms: float, **more: object) -> Measurement:
    return Measurement(
        architecture=name,
        setting=Setting("onnxruntime", "a cpu", "made up", workload),
        protocol="p",
        statistic="minimum",
        verdict="good",
        fingerprint=FINGERPRINT,
        timestamp="2026-01-01T00:00:00+00:00",
        minimum=latency_ms,
        median=1.1 * latency_ms,
        **more,
    )


def true_ms(spec: LanguageModelSpec, phase: str, length: int) -> float:
    """A device on which operators add up: a call, and for each operator an overhead and its work."""
    work = model_work(spec, phase, length)
    return 0.01 + 0.005 * len(spec.operators) + 2e-7 * work.macs


def filled(plan: TablePlan) -> OperatorTable:
    return plan.table(
        measured(m.name, m.workload, true_ms(m.spec, m.workload.phase, m.workload.context or m.workload.source_length))
        for m in plan.models
    )


# ---- Closed forms -------------------------------------------------------------------------------


def test_closed_forms_come_back_from_exact_measurements() -> None:
    tokens = [64, 128, 300, 1024, 2048]
    prefill, decode = PrefillForm(2e-6, 3e-3, 1.5), DecodeForm(4e-5, 0.2)
    found = fit_prefill(tokens, prefill(tokens).tolist())
    np.testing.assert_allclose((found.a, found.b, found.c), (2e-6, 3e-3, 1.5), rtol=1e-6)
    found_step = fit_decode(tokens, decode(tokens).tolist())
    np.testing.assert_allclose((found_step.p, found_step.q), (4e-5, 0.2), rtol=1e-6)


def test_prompts_are_padded_to_tiles() -> None:
    form = PrefillForm(1.6e-7, 2.3e-6, 0.046, tile=128)
    assert form(1) == form(128) < form(129) == form(256)
    found = fit_prefill([100, 200, 500, 900], form([100, 200, 500, 900]).tolist(), tile=128)
    np.testing.assert_allclose((found.a, found.b, found.c), (form.a, form.b, form.c), rtol=1e-5)


def test_no_coefficient_is_negative() -> None:
    form = fit_prefill([10, 100, 1000], [1.0, 4.0, 5.0])
    assert min(form.a, form.b, form.c) >= 0
    flat = fit_decode([10, 1000], [1.0, 0.9])
    assert flat.p == 0
    assert 0.9 <= flat.q <= 1.0


def test_a_generation_is_its_prefill_and_its_steps() -> None:
    form = GenerationForm(PrefillForm(1e-6, 1e-3, 0.1), DecodeForm(1e-4, 0.3))
    by_hand = float(form.prefill(50)) + sum(float(form.decode(50 + i)) for i in range(9))
    assert form.total(50, 10) == pytest.approx(by_hand)
    assert form.total(50, 1) == pytest.approx(float(form.prefill(50)))
    kept = float(form.prefill(50)) + sum(float(form.decode(30 + i)) for i in range(9))
    assert form.total(50, 10, evicted=0.4) == pytest.approx(kept)
    assert GenerationForm.from_json(form.to_json()) == form


def test_the_budget_rule_evicts_no_more_than_it_must() -> None:
    form = GenerationForm(PrefillForm(0.0, 1e-3, 0.1), DecodeForm(1e-3, 0.1))
    worst = form.worst_case(1000, 10, longest=40)
    assert worst == pytest.approx(form.total(1000, 40))  # five times as long, but 40 at most
    assert form.eviction_for(worst + 1.0, 1000, 10, 40) == 0.0
    for budget in (worst - 5.0, worst - 20.0):
        share = form.eviction_for(budget, 1000, 10, 40)
        assert share is not None
        assert form.total(1000, 40, evicted=share) == pytest.approx(budget)
    assert form.eviction_for(1.0, 1000, 10, 40) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: fit_prefill([10, 10, 20], [1.0, 1.0, 2.0]),
        lambda: fit_decode([10], [1.0]),
        lambda: fit_decode([10, 20], [1.0, -1.0]),
        lambda: fit_decode([10, 20], [1.0, np.nan]),
        lambda: fit_decode([10, 20], [1.0]),
        lambda: fit_prefill([10, 20, 30], [1.0, 2.0, 3.0], tile=0),
        lambda: GenerationForm(PrefillForm(0, 0, 1), DecodeForm(0, 1)).total(10, 0),
        lambda: GenerationForm(PrefillForm(0, 0, 1), DecodeForm(0, 1)).total(10, 5, evicted=1.5),
        lambda: Roofline(-1.0),
        lambda: Roofline(1.0, batch=0),
    ],
)
def test_impossible_figures_are_refused(wrong) -> None:
    with pytest.raises(PredictorError):
        wrong()


# ---- Work and memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_work_counts_the_parameters_of_the_torch_model(tied) -> None:
    from gnomon.search_spaces.hybrid_slm.model import LanguageModel

    spec = model(tied=tied, meta_tokens=3)
    count = sum(parameter.numel() for parameter in LanguageModel(spec).parameters())
    assert model_work(spec, "step", 10).parameters == count
    assert model_work(spec, "prefill", 10).parameters == count


def test_steps_cost_more_with_context_only_where_something_attends_to_all() -> None:
    attends, local = model(picks=(0, 1)), model(picks=(2, 1))
    assert model_work(attends, "step", 200).macs > model_work(attends, "step", 100).macs
    assert model_work(local, "step", 200) == model_work(local, "step", 100)


def test_a_roofline_is_compute_and_memory() -> None:
    spec, work = model(), model_work(model(), "step", 100)
    assert Roofline(0.0).of_model(spec, "step", 100) == work.macs
    assert Roofline(10.0).of_model(spec, "step", 100) == work.macs + 10 * (work.parameters + work.state_traffic)
    kinetics = Roofline(10.0, weights=False, batch=4)
    assert kinetics.of_model(spec, "step", 100) == 4 * (work.macs + 10 * work.state_traffic)


def test_states_are_what_the_model_carries() -> None:
    import torch

    from gnomon.search_spaces.hybrid_slm.model import LanguageModel

    spec = model(meta_tokens=2)
    torch.manual_seed(0)
    with torch.no_grad():
        _, states = LanguageModel(spec).prefill(torch.zeros(3, 40, dtype=torch.int64))
    carried = sum(tensor.numel() * tensor.element_size() for state in states for tensor in state)
    assert state_bytes(spec, 40, batch=3) == carried
    assert state_bytes_per_token(spec, 40) == 2 * 2 * 16 * 4  # one growing cache: keys, values, heads x features, float
    assert state_bytes_per_token(model(picks=(1, 2)), 40) == 0


def test_peak_memory_holds_weights_and_both_states() -> None:
    spec = model()
    for length in (10, 100):
        held = weight_bytes(spec) + state_bytes(spec, length) + state_bytes(spec, length + 1)
        assert held < peak_bytes(spec, "step", length) < 1.2 * held
        assert peak_bytes(spec, "prefill", length) > weight_bytes(spec) + state_bytes(spec, length)
    short, long = (peak_bytes(spec, "prefill", length) - weight_bytes(spec) for length in (1000, 2000))
    assert long > 3.0 * short  # scores of all tokens with all others


# ---- Metrics ------------------------------------------------------------------------------------


def test_metrics_of_two_phases() -> None:
    step = measured("m", replace(STEP, batch=4), 2.0, peak_memory_bytes=50, energy_mj=3.0)
    prefill = measured("m", replace(PREFILL, batch=4), 9.0, peak_memory_bytes=80)
    found = generation_metrics(prefill, step)
    assert (found.time_to_first_token_ms, found.prompt_tokens) == (9.0, 64)
    assert (found.ms_per_token, found.context) == (2.0, 100)
    assert found.tokens_per_s == pytest.approx(4 * 1000 / 2.0)
    assert found.peak_memory_bytes == 80
    assert found.energy_per_token_mj == 3.0
    assert type(found).from_json(found.to_json()) == found


def test_metrics_of_a_whole_plan() -> None:
    whole = measured(
        "m", Workload((64,), source_length=64, generated_length=10), 30.0, parts={"prefill": 10.0, "step": 20.0}
    )
    assert time_to_first_token_ms(whole) == 10.0
    assert ms_per_token(whole) == 2.0
    assert tokens_per_s(whole) == pytest.approx(500.0)
    assert peak_memory_bytes(whole) is None


def test_metrics_of_what_was_not_measured_are_refused() -> None:
    with pytest.raises(PredictorError, match="no step was measured"):
        ms_per_token(measured("m", PREFILL, 9.0))
    with pytest.raises(PredictorError, match="batch"):
        generation_metrics(measured("m", PREFILL, 9.0), measured("m", replace(STEP, batch=2), 2.0))
    with pytest.raises(MeasurementError):
        ms_per_token(replace(measured("m", STEP, 1.0), verdict="failed", error="crashed"))


# ---- Tables -------------------------------------------------------------------------------------


def test_a_plan_measures_each_part_once() -> None:
    plan = TablePlan.of_models([model(), model(picks=(0, 0))], {"step": (50, 100)}, copies=3)
    names = [each.name for each in plan.models]
    assert len(set(names)) == len(names)
    by_part = {(each.part.kind, each.workload.context) for each in plan.models}
    # Attention at both contexts; what does the same work at each, at one.
    assert {("attention", 50), ("attention", 100)} <= by_part
    assert [kind for kind, _ in by_part].count("ffn") == [kind for kind, _ in by_part].count("sliding_window") == 1
    assert {len(each.spec.operators) for each in plan.models} == {0, 3}


def test_sizes_that_a_mixer_does_not_read_make_no_part() -> None:
    several = [replace(sizes(64), kv_heads=heads, window=window) for heads, window in ((1, 8), (2, 8), (2, 16))]
    counts = {}
    for kind in ("attention", "sliding_window", "mamba2"):
        specs = [LanguageModelSpec(200, 64, (Operator(kind, each),)) for each in several]
        counts[kind] = len(TablePlan.of_models(specs, {"step": (50,)}).operators)
    assert counts == {"attention": 2, "sliding_window": 3, "mamba2": 1}


def test_the_sum_of_a_table_is_the_latency_where_operators_add_up() -> None:
    specs = [model(picks=picks) for picks in ((0, 1), (2, 1, 0, 1), (1,) * 5)]
    table = filled(TablePlan.of_models(specs, {"step": (50, 200), "prefill": (32, 128)}, copies=4))
    for spec in specs:
        for length in (50, 117, 200):  # linear between measured lengths
            assert table.model_ms(spec, "step", length) == pytest.approx(true_ms(spec, "step", length), rel=1e-6)
        assert table.model_ms(spec, "prefill", 128) == pytest.approx(true_ms(spec, "prefill", 128), rel=1e-6)
        assert table.model_ms(spec, "prefill", 90) == pytest.approx(true_ms(spec, "prefill", 90), rel=0.1)


def test_meta_tokens_are_read_and_carried() -> None:
    plain, meta = model(picks=(0, 1)), model(picks=(0, 1), meta_tokens=20)
    table = filled(TablePlan.of_models([plain], {"step": (50, 200)}))
    assert table.model_ms(meta, "step", 100) == pytest.approx(table.model_ms(plain, "step", 120))


def test_widths_between_measured_ones_are_interpolated() -> None:
    ends = [model(width) for width in (32, 96)]
    sparse = TablePlan.of_models([*ends, model(64)], {"step": (100,)}, sparse=True)
    assert {part.part.sizes[0] for part in sparse.models} == {32, 96}
    table = filled(sparse)
    assert table.model_ms(model(64), "step", 100) == pytest.approx(true_ms(model(64), "step", 100), rel=1e-6)
    with pytest.raises(PredictorError, match="not in the look-up table"):
        table.model_ms(model(128), "step", 100)
    with pytest.raises(PredictorError, match="not in the look-up table"):
        table.model_ms(replace(model(64), vocabulary=1000), "step", 100)


def test_lengths_beyond_the_measured_are_refused_where_work_grows() -> None:
    table = filled(TablePlan.of_models([model()], {"step": (50, 100)}))
    local = model(picks=(2, 1))
    assert table.model_ms(local, "step", 250) == pytest.approx(true_ms(local, "step", 250))
    with pytest.raises(PredictorError, match="not in the look-up table"):
        table.model_ms(model(), "step", 101)
    with pytest.raises(PredictorError, match="not in the look-up table"):
        table.model_ms(local, "prefill", 50)


def test_a_table_says_what_was_not_measured() -> None:
    plan = TablePlan.of_models([model()], {"step": (50,)})
    with pytest.raises(PredictorError, match="not measured"):
        plan.table(())
    failed = [replace(measured(m.name, m.workload, 1.0), verdict="failed") for m in plan.models]
    with pytest.raises(MeasurementError):
        plan.table(failed)


def test_tables_come_back_from_files(tmp_path) -> None:
    table = filled(TablePlan.of_models([model()], {"step": (50, 100)}))
    path = tmp_path / "table.json"
    table.save(path)
    assert OperatorTable.load(path) == table
    assert table.source is not None
    assert (table.source.statistic, table.source.copies) == ("minimum", 8)
    assert table.source.fingerprint == FINGERPRINT
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": "gnomon.operator_table/99"}))
    with pytest.raises(SchemaError):
        OperatorTable.load(path)


def test_tables_merge_under_equal_conditions_only() -> None:
    short, long = (filled(TablePlan.of_models([model()], {"step": (length,)})) for length in (50, 200))
    merged = short.merged([long])
    assert merged.model_ms(model(), "step", 125) == pytest.approx(true_ms(model(), "step", 125), rel=1e-6)
    assert long.source is not None
    with pytest.raises(PredictorError, match="other conditions"):
        short.merged([replace(long, source=replace(long.source, batch=2))])


def test_wrong_entries_are_refused() -> None:
    entry = Entry(Part("ffn", (64, 192, 0)), "step", 100, 1.0)
    for wrong in ((entry, entry), (replace(entry, latency_ms=-1.0),), (replace(entry, phase="decode"),)):
        with pytest.raises(PredictorError):
            OperatorTable(wrong)
    for arguments in ({"copies": 0}, {"lengths": {"decode": (10,)}}, {"lengths": {"step": ()}}):
        with pytest.raises(PredictorError):
            replace(TablePlan.of_models([model()], {"step": (50,)}), **arguments)


@pytest.mark.slow
def test_a_table_is_measured_through_onnx_runtime() -> None:
    pytest.importorskip("onnxruntime")
    from gnomon.devices import Protocol
    from gnomon.devices.onnxruntime import OnnxRuntimeDevice

    spec = model(picks=(0, 1))
    plan = TablePlan.of_models([spec], {"step": (100,)}, copies=2)
    protocol = Protocol(processes=2, min_processes=1, time_cap_s=0.02, target_interval=0.5)
    device = OnnxRuntimeDevice(statistic="minimum")
    table = plan.table(device.measure([each.deployable() for each in plan.models], protocol))
    assert table.source is not None
    assert table.source.setting.device == "onnxruntime"
    assert 0 < table.model_ms(spec, "step", 100) < 10
