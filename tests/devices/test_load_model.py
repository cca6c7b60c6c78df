"""The contention model: a few levels of load tell the others, with an honest uncertainty."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from gnomon.cli import main
from gnomon.devices.load import Load
from gnomon.devices.load_model import LoadModel
from gnomon.errors import ConfigError, MeasurementError

LEVELS = [Load(cpu, memory) for cpu in range(3) for memory in range(3)][1:]


def linear(load: Load) -> float:
    return 1.0 + 0.4 * load.cpu + 0.15 * load.memory


def curved(load: Load) -> float:
    return 1.0 + 0.1 * load.cpu + 0.2 * load.cpu**2 + 0.1 * load.cpu * load.memory + 0.05 * load.memory**2


def test_what_was_not_measured_is_predicted():
    model = LoadModel.fit([Load(1, 0), Load(0, 1), Load(2, 0)], [linear(Load(1)), linear(Load(0, 1)), linear(Load(2))])
    mean, std = model.latency_ms(2.0, Load(2, 2))
    assert mean == pytest.approx(2.0 * linear(Load(2, 2)), rel=0.01)
    assert 0.0 < std < 0.5


def test_degree_2_sees_curves_and_interaction():
    slowdowns = [curved(load) for load in LEVELS]
    straight, bent = (LoadModel.fit(LEVELS, slowdowns, degree) for degree in (1, 2))
    for load in (Load(2, 1), Load(3, 0)):
        assert bent.slowdown(load)[0] == pytest.approx(curved(load), rel=0.03)
    assert straight.noise > 2 * bent.noise
    assert abs(straight.slowdown(Load(3, 0))[0] - curved(Load(3, 0))) > 0.3


def test_no_load_is_no_slowdown():
    model = LoadModel.fit([Load(1)], [1.5])
    assert model.slowdown(Load()) == (1.0, 0.0)


def test_the_standard_deviation_holds():
    """Of many experiments with noise of 5 %, the deviation covers about two thirds, and nearly all twice."""
    rng, deviations = np.random.default_rng(0), []
    for _ in range(300):
        measured = [linear(load) + rng.normal(0, 0.05) for load in LEVELS]
        mean, std = LoadModel.fit(LEVELS[:-1], measured[:-1]).slowdown(LEVELS[-1])
        deviations.append(abs(measured[-1] - mean) / std)
    assert 0.55 < np.mean(np.array(deviations) < 1) < 0.85
    assert np.mean(np.array(deviations) < 2) > 0.88


def test_it_is_less_sure_of_what_is_far_away():
    model = LoadModel.fit([Load(1), Load(2)], [1.2, 1.4])
    near, far = model.slowdown(Load(2))[1], model.slowdown(Load(8))[1]
    other_kind = model.slowdown(Load(0, 2))[1]
    assert near < far < other_kind


@pytest.mark.parametrize(
    ("loads", "degree"),
    [([], 1), ([Load()], 1), ([Load(1, 1), Load(1, 1)], 1), (LEVELS[:4], 2)],
    ids=["none", "no load", "one level twice", "four for five coefficients"],
)
def test_too_few_levels_are_refused(loads, degree):
    with pytest.raises(ConfigError, match="too few levels"):
        LoadModel.fit(loads, [1.0] * len(loads), degree)


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigError, match="degree=3"):
        LoadModel.fit([Load(1)], [1.0], degree=3)
    for slowdowns in ([0.0], [float("nan")], [1.0, 1.0]):
        with pytest.raises(MeasurementError, match="slowdown"):
            LoadModel.fit([Load(1)], slowdowns)


def test_it_survives_being_written():
    model = LoadModel.fit(LEVELS, [linear(load) for load in LEVELS], 2)
    assert LoadModel.from_json(model.to_json()) == model


# ---- The command -----------------------------------------------------------------------------

QUICK = ["protocol=quick", "protocol.processes=2", "protocol.time_cap_s=0.01", "protocol.interleave=false"]


def test_the_command_measures_and_predicts(tmp_path, cnn_file, capsys):
    words = ["measure", "load", f"from={cnn_file(tmp_path / 'm.onnx', 8, 2)}", *QUICK]
    words += ["levels=[{cpu:1},{memory:1},{cpu:1,memory:1}]", "at={cpu:2,memory:0}", f"to={tmp_path / 'load.json'}"]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["load"]["cpu"] for row in result["levels"]] == [0, 1, 0, 1]
    latencies = [row["measurement"]["median"] for row in result["levels"]]
    assert result["levels"][3]["measurement"]["setting"]["options"]["load"] == {"cpu": 1, "memory": 1}
    model = LoadModel.from_dict(result["model"])
    assert LoadModel.from_json((tmp_path / "load.json").read_text()) == model
    ms, std = model.latency_ms(latencies[0], Load(2))
    assert (result["at"]["ms"], result["at"]["std_ms"]) == (pytest.approx(ms), pytest.approx(std))
    assert result["levels"][3]["predicted_ms"] > 0
    assert result["levels"][0]["predicted_ms"] is None


def test_the_command_prints_a_table(tmp_path, cnn_file, capsys):
    words = ["measure", "load", f"from={cnn_file(tmp_path / 'm.onnx', 8, 2)}", *QUICK, "levels=[{cpu:1}]"]
    assert main(words) == 0
    assert "ms x (1 +" in capsys.readouterr().out.replace("-", "+")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["levels=[]"], "too few levels"),
        (["levels=[{gpu:1}]"], r"levels\[0\]"),
        (["levels=[{cpu:-1}]"], "load.cpu=-1"),
        (["degree=2", "levels=[{cpu:1},{memory:1},{cpu:1,memory:1}]"], "too few levels"),
        (["at=3"], "at=3"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(words, message, tmp_path, cnn_file, capsys, monkeypatch):
    started = []
    monkeypatch.setattr("gnomon.devices.loaded.LoadedDevice.measure", lambda *a, **k: started.append(a) or iter(()))
    path = cnn_file(tmp_path / "m.onnx", 8, 2)
    assert main(["measure", "load", f"from={path}", *words]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not started
