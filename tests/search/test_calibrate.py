"""Reference measurements, the limit they resolve, and whether anything can meet it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnomon.devices import Protocol
from gnomon.errors import ConfigError, InfeasibleError, MeasurementError, SpaceError
from gnomon.predictors import LatencyModel
from gnomon.predictors.analytic import AnalyticPredictor
from gnomon.records.store import MeasurementStore
from gnomon.search import Problem
from gnomon.search.calibrate import Calibration, calibrate, make_problem
from gnomon.search.feasibility import binding, check_feasible, fastest
from gnomon.search.objectives import ParetoObjective
from gnomon.search.setup import Components, FinaliseSettings, StudySettings
from gnomon.search.study import _calibration
from gnomon.search_spaces.nasbench201 import NASBench201
from tests.search.doubles import study_doubles as doubles

REFERENCES = 6


class NamedSpace(doubles.TrainableSpace):
    """The first network is the reference, and not what a predictor would choose."""

    @property
    def named(self) -> Mapping[str, Mapping[str, Any]]:
        return {"standard": {"width": 4, "kernel": 3}, "big": {"width": 8, "kernel": 3}}


class NoReferences(AnalyticPredictor):
    """Leaves the named network out, as a space without one would."""

    def references(self, n: int, *, seed: int = 0, among: np.ndarray | None = None) -> np.ndarray:
        return np.array([[0, 0], [3, 0], [0, 1], [2, 0], [2, 1], [1, 0]], dtype=np.int8)[:n]


def make_components(folder: Path, *, space: Any = None, predictor: type = AnalyticPredictor, **limit: Any) -> Any:
    space = space or NamedSpace()
    return Components(
        config={},
        space=space,
        task=None,  # type: ignore[arg-type]
        device=doubles.FakeDevice(),
        protocol=Protocol(),
        evaluator=None,  # type: ignore[arg-type]
        predictor=predictor(space),
        strategy=None,  # type: ignore[arg-type]
        objective=ParetoObjective(**limit),
        study=StudySettings("study", str(folder), "", str(folder / "measurements.sqlite"), references=REFERENCES),
        finalise=FinaliseSettings(),
    )


def problem_of(components: Components, calibration: Calibration) -> Problem:
    return make_problem(components.predictor, components.objective, calibration)


# ---- Measuring --------------------------------------------------------------------------------


def test_references_are_measured_once_and_said(tmp_path: Path) -> None:
    components = make_components(tmp_path)
    seen: list[tuple[int, int]] = []
    calibration = calibrate(components, lambda done, total: seen.append((done, total)))
    device = components.device
    assert calibration.measured == len(calibration.keys) == len(set(calibration.keys)) == REFERENCES
    assert calibration.latencies_ms == tuple(device.latency(key) for key in calibration.keys)
    assert calibration.setting == device.setting(components.space.workload)
    assert calibration.fingerprint == device.fingerprint()
    assert calibration.failed == ()
    assert (seen[0], seen[-1]) == ((0, REFERENCES), (REFERENCES, REFERENCES))
    assert len(device.measured) == REFERENCES


def test_another_study_takes_them_from_the_store(tmp_path: Path) -> None:
    first, second = make_components(tmp_path), make_components(tmp_path)
    assert calibrate(second) == calibrate(first)
    assert len(second.device.measured) + len(first.device.measured) == REFERENCES
    assert len(MeasurementStore(tmp_path / "measurements.sqlite")) == REFERENCES


@pytest.mark.parametrize("differs", ["protocol", "statistic"])
def test_measurements_under_other_conditions_are_not_taken(tmp_path: Path, differs: str) -> None:
    first, second = make_components(tmp_path), make_components(tmp_path)
    calibrate(first)
    if differs == "protocol":
        second = replace(second, protocol=Protocol(processes=9))
    else:
        second.device.statistic = "minimum"
    calibrate(second)
    assert len(second.device.measured) == REFERENCES


def test_a_kill_loses_no_finished_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnomon.search.measuring.CHUNK", 4)
    components = make_components(tmp_path)
    measure = components.device.measure

    def killed_later(deployables: Any, protocol: Any, *, seed: int = 0) -> Any:
        if components.device.measured:
            raise KeyboardInterrupt
        return measure(deployables, protocol, seed=seed)

    monkeypatch.setattr(components.device, "measure", killed_later)
    with pytest.raises(KeyboardInterrupt):
        calibrate(components)
    again = make_components(tmp_path)
    calibrate(again)
    assert len(again.device.measured) == REFERENCES - 4


def test_the_ledger_keeps_what_every_worker_adapts_to(open_ledger, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    components, display = make_components(tmp_path), doubles.Silence()
    first = _calibration(open_ledger(), components, display)
    elsewhere = make_components(tmp_path / "another")
    again = _calibration(open_ledger(), elsewhere, display)
    assert replace(again, seconds=0.0) == replace(first, seconds=0.0)
    assert elsewhere.device.measured == []
    assert display.phases == ["measuring reference architectures on fake"]
    assert Calibration.from_dict(open_ledger().note("calibration")) == again
    assert again.seconds > 0


def test_the_one_who_measured_knows_how_long_it_took(open_ledger, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert _calibration(open_ledger(), make_components(tmp_path), doubles.Silence()).seconds > 0


# ---- Failures ---------------------------------------------------------------------------------


def test_a_failed_reference_is_left_out_and_noted(tmp_path: Path) -> None:
    key = calibrate(make_components(tmp_path / "first")).keys[-1]
    components = make_components(tmp_path)
    components.device.failing = {key}
    calibration = calibrate(components)
    assert key not in calibration.keys
    assert len(calibration.latencies_ms) == len(calibration.keys) == REFERENCES - 1
    assert calibration.failed == (f"{key}: told to fail",)
    assert calibration.measured == REFERENCES
    mean, _ = problem_of(components, calibration).latency.predict(np.array([[3, 1]], dtype=np.int8))
    assert mean[0] > 1.0


def test_too_many_failures_end_it_with_the_cause(tmp_path: Path) -> None:
    keys = calibrate(make_components(tmp_path / "first")).keys
    components = make_components(tmp_path)
    components.device.failing = set(keys[:3])
    with pytest.raises(MeasurementError, match=rf"3 of {REFERENCES} reference measurements failed.*told to fail"):
        calibrate(components)
    components.device.failing.clear()
    assert calibrate(components).failed == (), "and the next run measures them again"


def test_a_reference_network_that_fails_is_said(tmp_path: Path) -> None:
    components = make_components(tmp_path, latency="60%")
    components.device.failing = {"1.1"}
    with pytest.raises(MeasurementError, match="reference network standard could not be measured"):
        calibrate(components)


# ---- Relative limits --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "key"), [("", "1.1"), ("big", "3.1")])
def test_a_relative_limit_is_of_the_measured_reference_network(tmp_path: Path, name: str, key: str) -> None:
    components = make_components(tmp_path, predictor=NoReferences, latency="60%", reference=name)
    calibration = calibrate(components)
    assert calibration.keys[-1] == key, "measured besides the predictor's own"
    assert calibration.measured == REFERENCES + 1
    assert calibration.reference == (name or "standard")
    assert calibration.reference_ms == components.device.latency(key)
    assert problem_of(components, calibration).limit_ms == pytest.approx(0.6 * calibration.reference_ms)


def test_a_reference_network_is_measured_once(tmp_path: Path) -> None:
    components = make_components(tmp_path, latency="60%")
    calibration = calibrate(components)
    assert len(set(calibration.keys)) == len(calibration.keys)
    assert "1.1" in calibration.keys


def test_an_absolute_limit_needs_no_reference_network(tmp_path: Path) -> None:
    components = make_components(tmp_path, predictor=NoReferences, latency_ms=3.5)
    calibration = calibrate(components)
    assert (calibration.reference, calibration.reference_ms) == ("", None)
    assert calibration.measured == REFERENCES
    assert problem_of(components, calibration).limit_ms == 3.5
    assert problem_of(make_components(tmp_path), calibration).limit_ms is None


def test_a_network_that_the_space_does_not_name_is_answered_with_those_it_does(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"resnet.*big.*standard"):
        calibrate(make_components(tmp_path, latency="60%", reference="resnet"))


def test_a_space_without_names_has_no_relative_limits(tmp_path: Path) -> None:
    components = make_components(tmp_path, space=doubles.TrainableSpace(), latency="60%")
    with pytest.raises(ConfigError, match="this space names none"):
        problem_of(components, calibrate(components))


def test_every_worker_has_the_same_model(tmp_path: Path) -> None:
    components = make_components(tmp_path)
    calibration = calibrate(components)
    there = Calibration.from_json(calibration.to_json())
    rows = components.space.enumerate()
    here, other = (problem_of(components, c).latency.predict(rows) for c in (calibration, there))
    np.testing.assert_array_equal(here, other)


# ---- Feasibility ------------------------------------------------------------------------------


class CellLatency(LatencyModel):
    """1 ms and what each of the six operations adds, known to within ``std_ms``; the first counts most."""

    def __init__(self, std_ms: float = 0.1) -> None:
        self.std_ms = std_ms
        self.costs = np.array([0.3, 0.2, 0.7, 0.4, 0.1])  # none, skip, 1x1, 3x3, pooling: the last is fastest
        self.weights = np.array([4.0, 1.0, 1.0, 2.0, 1.0, 1.0])

    def predict(self, genotypes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = 1.0 + (self.costs[genotypes] * self.weights).sum(axis=1)
        return mean, np.full(len(genotypes), self.std_ms)


FASTEST_MS = 1.0 + 0.1 * 10.0
REACHABLE_MS = FASTEST_MS + 1.2815515655446004 * 0.1
"""With a probability of 0.9."""


def cells(limit_ms: float | None, confidence: float = 0.9, std_ms: float = 0.1) -> Problem:
    objective = ParetoObjective(latency_ms=limit_ms, confidence=confidence)
    return Problem(NASBench201(), objective, CellLatency(std_ms), limit_ms)


def test_the_fastest_of_all_cells_is_found() -> None:
    row, violation = fastest(cells(1.0), seed=0)
    np.testing.assert_array_equal(row, [4] * 6)
    assert violation == pytest.approx(REACHABLE_MS / 1.0 - 1.0)


@pytest.mark.parametrize("limit_ms", [None, 1.001 * REACHABLE_MS, 50.0])
def test_a_limit_that_can_be_met_passes(limit_ms: float | None) -> None:
    check_feasible(cells(limit_ms), seed=0)


def test_a_limit_that_cannot_be_met_is_diagnosed() -> None:
    with pytest.raises(InfeasibleError) as caught:
        check_feasible(cells(1.5), seed=0)
    text = str(caught.value)
    assert "no architecture of nasbench201 meets it with probability 0.9" in text
    assert (caught.value.field, caught.value.value) == ("objective.latency_ms", 1.5)
    offered = re.search(r"at least ([\d.]+) ms here", text)
    assert offered is not None
    assert float(offered[1]) == pytest.approx(REACHABLE_MS, rel=1e-3)
    assert f"predicted at {FASTEST_MS:.4g} ± 0.1 ms" in text
    assert "Raise the limit" in text
    named = re.findall(r"edge_(\d_\d)=\S+ \(\+([\d.]+) ms otherwise\)", text)
    assert named[0][0] == "0_1", "the decision that costs most comes first"
    assert named[1][0] == "0_3", "then the next"
    assert [float(extra) for _, extra in named] == [0.4, 0.2, 0.1, 0.1]


def test_a_limit_missed_for_lack_of_certainty_is_another_diagnosis() -> None:
    between = (FASTEST_MS + REACHABLE_MS) / 2
    with pytest.raises(InfeasibleError, match=r"within the limit on average.*study\.references.*objective\.confidence"):
        check_feasible(cells(between), seed=0)
    check_feasible(cells(between, confidence=0.5), seed=0)
    check_feasible(cells(between, std_ms=0.01), seed=0)


@pytest.mark.parametrize(
    "std_ms",
    [
        0.1,
        0.1003,
    ],
)
def test_the_limit_that_is_offered_can_be_met(std_ms: float) -> None:
    with pytest.raises(InfeasibleError) as caught:
        check_feasible(cells(1.5, std_ms=std_ms), seed=0)
    offered = re.search(r"at least ([\d.]+) ms here", str(caught.value))
    assert offered is not None
    check_feasible(cells(float(offered[1]), std_ms=std_ms), seed=0)


def test_binding_decisions_are_at_most_four_and_active() -> None:
    problem = cells(1.5)
    row, _ = fastest(problem, seed=0)
    assert len(binding(problem, row).split(", ")) == 4
    assert len(binding(problem, row, most=2).split(", ")) == 2


def test_decisions_that_are_not_active_do_not_bind(problem: Problem) -> None:
    """``y`` only exists where x0 is not 0, and the fastest has it at 0."""
    row, _ = fastest(replace(problem, limit_ms=0.5), seed=0)
    assert "y=" not in binding(problem, row, most=99)
    assert "x0=0" in binding(problem, row, most=99)
