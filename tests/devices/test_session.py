"""Sessions: plans of several graphs, deterministic inputs, counts of runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gnomon.devices import Protocol
from gnomon.devices.answers import random_input
from gnomon.devices.jobs import CallJob, GraphJob, ModelJob, Quantiles, RoundJob, TensorJob
from gnomon.devices.load import Load
from gnomon.devices.runner import Runner, Session, import_class
from gnomon.devices.worker import quantiles, time_runs, warm_up
from gnomon.errors import DeviceError, MeasurementError
from gnomon.records import Workload


class Recorder(Runner):
    """Runs nothing: notes what each graph was fed; its clock ticks 1 ms a mark."""

    name = "recorder"

    def __init__(self) -> None:
        super().__init__(1)
        self.calls: list[tuple[str, dict[str, float]]] = []
        self.ticks = 0

    def load(self, graph, model):
        name = next(name for name, job in model.graphs.items() if job is graph)

        def run(inputs):
            self.calls.append((name, {key: float(np.asarray(value).flat[0]) for key, value in inputs.items()}))
            return [np.array([100.0 + len(self.calls)]) for _ in graph.outputs]

        return run

    def mark(self):
        self.ticks += 1
        return self.ticks

    def elapsed_ms(self, start, end):
        return float(end - start)


@pytest.fixture
def seq2seq() -> ModelJob:
    encoder = GraphJob((TensorJob("source", (1, 4)),), ("memory",))
    step = GraphJob((TensorJob("memory", (1,)), TensorJob("state", (1,))), ("logits", "new_state"))
    plan = (CallJob("encoder", 1, {"memory": "memory"}), CallJob("step", 3, {"new_state": "state"}))
    return ModelJob("seq2seq", {"encoder": encoder, "step": step}, plan, Workload((4,)))


def test_a_plan_feeds_outputs_to_the_calls_that_follow(seq2seq):
    runner = Recorder()
    total, parts = Session(runner, seq2seq).run()
    assert [name for name, _ in runner.calls] == ["encoder", "step", "step", "step"]
    steps = [fed for name, fed in runner.calls if name == "step"]
    assert [fed["memory"] for fed in steps] == [101.0] * 3
    assert [fed["state"] for fed in steps[1:]] == [102.0, 103.0]
    assert (total, parts) == (4.0, {"encoder": 1.0, "step": 3.0})


def test_state_does_not_leak_into_the_next_run(seq2seq):
    runner = Recorder()
    session = Session(runner, seq2seq)
    session.run()
    session.run()
    first, second = (fed["state"] for name, fed in (runner.calls[1], runner.calls[5]))
    assert first == second


def test_outputs_must_be_finite(seq2seq):
    class Infinite(Recorder):
        def load(self, graph, model):
            return lambda inputs: [np.array([np.inf]) for _ in graph.outputs]

    with pytest.raises(MeasurementError, match="output 'memory' of graph 'encoder' is not finite"):
        Session(Infinite(), seq2seq).check()


def test_inputs_are_deterministic_and_valid():
    assert np.array_equal(random_input(TensorJob("x", (2, 3))), random_input(TensorJob("x", (2, 3))))
    assert not np.array_equal(random_input(TensorJob("x", (2, 3))), random_input(TensorJob("y", (2, 3))))
    assert not np.array_equal(random_input(TensorJob("x", (2, 3))), random_input(TensorJob("x", (2, 3)), seed=1))
    assert random_input(TensorJob("x", (50,), "float16")).dtype == np.float16
    assert set(random_input(TensorJob("tokens", (50,), "int64"))) == {0, 1}
    assert random_input(TensorJob("mask", (5,), "bool")).all()


class Sleeper:
    """A session whose run takes a fixed time of a fake clock."""

    def __init__(self, ms: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ms, self.now = ms, 0.0
        monkeypatch.setattr("gnomon.devices.worker.time.perf_counter", lambda: self.now)

    def run(self):
        self.now += self.ms * 1e-3
        return self.ms, {"main": self.ms}


@pytest.mark.parametrize(
    ("ms", "runs"),
    [(0.01, 1000), (1.0, 150), (20.0, 30), (100.0, 15), (5000.0, 1)],
    ids=["max_runs", "time cap", "min_runs stretch the cap", "ten times the cap", "one run at least"],
)
def test_how_many_runs(ms, runs, monkeypatch):
    protocol = Protocol(min_runs=30, max_runs=1000, time_cap_s=0.15)
    times, parts = time_runs(Sleeper(ms, monkeypatch), protocol, protocol.time_cap_s)
    assert abs(len(times) - runs) <= 1
    assert np.allclose(parts["main"], ms)


def test_warm_up_is_bounded(monkeypatch):
    protocol = Protocol(warmup_runs=10, time_cap_s=0.15)
    assert warm_up(Sleeper(0.1, monkeypatch), protocol) == (pytest.approx(150, abs=2), True)
    assert warm_up(Sleeper(5.0, monkeypatch), protocol) == (10, True)
    assert warm_up(Sleeper(1000.0, monkeypatch), protocol) == (1, False)
    assert warm_up(Sleeper(5.0, monkeypatch), replace(protocol, steady_share=None)) == (10, None)


def test_quantiles_of_a_series():
    assert quantiles(np.arange(11.0)) == Quantiles(0.0, 1.0, 5.0, 9.0)


def test_a_round_survives_the_pipe(seq2seq):
    job = RoundJob(
        "a.B", 2, {"level": "all"}, (seq2seq,), Protocol(), replace(seq2seq, name="r"), (0, 1), True, Load(2, 1), ("p",)
    )
    assert RoundJob.from_json(job.to_json()) == job


@pytest.mark.parametrize("path", ["no.such.Runner", "gnomon.devices.runner.Missing", "nodots", ""])
def test_a_runner_that_cannot_be_imported(path):
    with pytest.raises(DeviceError, match="cannot import"):
        import_class(path)


def test_unknown_runner_options_are_refused():
    with pytest.raises(DeviceError, match="unknown option"):
        Runner.__init__(Recorder(), 1, speed="fast")


def test_a_latency_counts_only_if_the_answers_are_the_models(tmp_path):
    class Doubling(Runner):
        name = "doubling"

        def load(self, graph, model):
            return lambda inputs: [2.0 * inputs["input"]]

    expected = 2.0 * random_input(TensorJob("input", (1, 4)))
    np.savez(tmp_path / "answers.npz", output=expected)
    graph = GraphJob((TensorJob("input", (1, 4)),), ("output",), answers=str(tmp_path / "answers.npz"), tolerance=1e-3)
    model = ModelJob("doubled", {"main": graph}, (CallJob("main"),), Workload((4,)))
    Session(Doubling(1), model).check()
    for wrong, size in ((expected * 1.01, "0.0099"), (expected[:, :2], "inf"), (expected * 0.0, "")):
        np.savez(tmp_path / "answers.npz", output=wrong)
        with pytest.raises(MeasurementError, match=f"differs from the model's by {size}"):
            Session(Doubling(1), model).check()
