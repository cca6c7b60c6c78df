"""Scenarios: named figures of a measurement."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gnomon.cli import main
from gnomon.devices.scenarios import SCENARIOS, scenario_named
from gnomon.errors import ConfigError, MeasurementError
from gnomon.records import Fingerprint, Measurement, Setting, Workload
from gnomon.search_spaces import Call, Deployable, Graph, TensorSpec


def measured(batch: int = 1, **changes):
    machine = Fingerprint("cpu", 2, 1, "os", "3.11", "runtime", 1, "fp32")
    setting = Setting("d", "cpu", "runtime", Workload((4,), batch))
    base = Measurement("m", setting, "p", "median", "good", machine, "now", median=4.0, interval=(3.0, 5.0))
    return replace(base, **changes)


def deployable(plan: tuple[Call, ...] = (Call("main"),), batch: int = 1) -> Deployable:
    graph = Graph((TensorSpec("x", (batch, 4)),), ("y",))
    return Deployable("m", Workload((4,), batch), {call.graph: graph for call in plan}, plan)


def test_single_stream_is_the_latency():
    figure = scenario_named("single_stream").figure(measured(), deployable())
    assert (figure.value, figure.unit, figure.interval) == (4.0, "ms", (3.0, 5.0))
    with pytest.raises(ConfigError, match=r"batch=8.*allowed: 1.*offline"):
        scenario_named("single_stream").check(deployable(batch=8))


def test_offline_is_examples_a_second():
    figure = scenario_named("offline").figure(measured(8), deployable(batch=8))
    assert figure.value == pytest.approx(2000.0)
    assert figure.interval == pytest.approx((1600.0, 8000 / 3))
    unbounded = scenario_named("offline").figure(measured(8, interval=(0.0, 5.0)), deployable(batch=8))
    assert unbounded.interval is None


def test_decode_is_per_token():
    encoder_decoder = deployable((Call("encoder"), Call("step", 20)))
    figure = scenario_named("decode").figure(measured(parts={"encoder": 1.0, "step": 3.0}), encoder_decoder)
    assert figure.value == pytest.approx(0.15)
    assert figure.interval is None  # the measurement's is of encoder and steps
    assert "20 tokens" in figure.what
    alone = scenario_named("decode").figure(measured(parts={"step": 4.0}), deployable((Call("step", 10),)))
    assert alone.interval == pytest.approx((0.3, 0.5))
    twice = deployable((Call("step", 4), Call("head"), Call("step")))
    assert scenario_named("decode").figure(measured(parts={"step": 3.0, "head": 1.0}), twice).value == 0.6


@pytest.mark.parametrize("plan", [(Call("main"),), (Call("a", 2), Call("b", 2))], ids=["none", "two"])
def test_decode_needs_one_repeated_call(plan):
    with pytest.raises(ConfigError, match="repeated calls"):
        scenario_named("decode").check(deployable(plan))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_failed_measurement_has_no_figure(name):
    plan = (Call("step", 2),)
    with pytest.raises(MeasurementError):
        scenario_named(name).figure(measured(verdict="failed", error="crashed", median=None), deployable(plan))


def test_unknown_scenarios_are_refused():
    with pytest.raises(ConfigError, match=r"scenario='server'.*single_stream"):
        scenario_named("server")


def test_on_the_command_line(tmp_path, cnn_file, capsys):
    path = cnn_file(tmp_path / "m.onnx", 8, 2, batch="n")
    words = ["measure", f"from={path}", "protocol=quick", "protocol.processes=2", "protocol.time_cap_s=0.01"]
    assert main([*words, "scenario=offline", "batch=4", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    latency = Measurement.from_dict(result["measurement"]).latency_ms
    assert result["figure"]["value"] == pytest.approx(4000 / latency)
    assert main([*words, "scenario=offline", "batch=4"]) == 0
    assert "throughput at batch 4" in capsys.readouterr().out
    assert main([*words, "scenario=single_stream", "batch=4"]) == 2
    assert "one example at a time" in capsys.readouterr().err
