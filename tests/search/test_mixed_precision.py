"""Which layers get eight bits: the predicted loss, the order, the bisection, and files that are what they say."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gnomon.cli import main
from gnomon.devices import Protocol
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.errors import ConfigError
from gnomon.export import Quantisation, Quantiser
from gnomon.search.mixed_precision import (
    MixedPrecision,
    MixedResult,
    fewest,
    front_counts,
    lifting_order,
    mixed_precision,
    needful,
)
from gnomon.search.sensitivity import Sensitivity, gauss_newton, layer_sensitivity
from gnomon.tasks.datasets import Digits
from gnomon.tasks.image_classification import ImageClassification
from tests.search.doubles.study_doubles import FakeDevice

BY_TENSOR = Quantisation(per_channel=False)
WIDE = "wide"
"""The layer whose channels differ so much that one scale cannot hold them."""


@pytest.fixture(scope="module")
def task() -> ImageClassification:
    return ImageClassification(Digits())


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, task: ImageClassification) -> Path:
    """Random convolutions and a head that least squares fit to the digits: right nine times in ten in floats."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("network") / "digits.onnx"
    sizes = np.geomspace(1.0, 300.0, 16).astype(np.float32)
    constants = {
        "stem.w": rng.standard_normal((16, 1, 3, 3)).astype(np.float32) / 3,
        "wide.w": rng.standard_normal((16, 1, 3, 3)).astype(np.float32) / 3 * sizes[:, None, None, None],
        "point.w": rng.standard_normal((24, 16, 1, 1)).astype(np.float32) / 4 / sizes[None, :, None, None],
    }
    nodes = [
        helper.make_node("Conv", ["x", "stem.w"], ["a0"], name="stem", pads=[1] * 4),
        helper.make_node("Relu", ["a0"], ["a"]),
        helper.make_node("Conv", ["a", "wide.w"], ["b"], name=WIDE, pads=[1] * 4, group=16),
        helper.make_node("Conv", ["b", "point.w"], ["c0"], name="point"),
        helper.make_node("Relu", ["c0"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["d"], ["features"]),
    ]
    features = run(save(path, nodes, constants, "features", 384), task.data.normalised("train"))
    targets = 8.0 * np.eye(10)[task.data.labels("train")]
    ridge = features.T @ features + 0.03 * len(features) * np.eye(features.shape[1])
    constants["head.w"] = np.linalg.solve(ridge, features.T @ targets).astype(np.float32)
    nodes.append(helper.make_node("MatMul", ["features", "head.w"], ["y"], name="head"))
    save(path, nodes, constants, "y", 10)
    assert task.score(path, "validation")["accuracy"] > 0.9
    return path


def save(path: Path, nodes: list[Any], constants: dict[str, np.ndarray], output: str, width: int) -> Path:
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def run(path: Path, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": inputs})[0])


@pytest.fixture(scope="module")
def quantiser(network: Path, task: ImageClassification) -> Quantiser:
    return Quantiser(network, [{"x": task.examples(64)}], BY_TENSOR)


@pytest.fixture(scope="module")
def sensitivity(quantiser: Quantiser, task: ImageClassification) -> Sensitivity:
    return layer_sensitivity(quantiser, [{"x": task.examples(256)}], classes=10)


# ---- Predicted loss -----------------------------------------------------------------------------


def divergence(exact: np.ndarray, found: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of class probabilities, in nats."""
    logs = [z - np.log(np.exp(z).sum(axis=1, keepdims=True)) for z in (exact, found)]
    return float((np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1).mean())


def test_the_form_is_the_divergence_of_small_errors_together() -> None:
    rng = np.random.default_rng(0)
    logits, errors = rng.standard_normal((50, 7)), 0.01 * rng.standard_normal((3, 50, 7))
    form = Sensitivity(("a", "b", "c"), gauss_newton(errors, logits))
    for chosen in ((1, 0, 0), (1, 1, 0), (1, 1, 1)):
        together = logits + np.tensordot(np.array(chosen), errors, axes=1)
        assert form.loss(np.array(chosen, bool)) == pytest.approx(divergence(logits, together), rel=0.02)


def test_inter_layer_terms_tell_errors_that_cancel() -> None:
    error = np.random.default_rng(0).standard_normal((20, 4))
    form = Sensitivity(("a", "b"), gauss_newton(np.stack([error, -error])))
    assert form.loss(np.array([True, False])) > 0.1
    assert form.loss(np.array([True, True])) == pytest.approx(0.0, abs=1e-12)
    assert form.savings(np.array([True, True])).max() < 0  # lifting one would make it worse


def test_savings_are_differences_of_the_loss() -> None:
    rng = np.random.default_rng(1)
    form = Sensitivity(tuple("abcde"), gauss_newton(rng.standard_normal((5, 30, 3))))
    quantised = np.array([True, False, True, True, False])
    savings = form.savings(quantised)
    for i in range(5):
        lifted = quantised.copy()
        lifted[i] = False
        assert savings[i] == pytest.approx(form.loss(quantised) - form.loss(lifted))


def test_finds_the_layer_that_hurts(
    sensitivity: Sensitivity, quantiser: Quantiser, task: ImageClassification, tmp_path: Path
) -> None:
    """And predicts the divergence of the whole quantised network within a factor of two."""
    alone = dict(zip(sensitivity.layers, np.diag(sensitivity.losses), strict=True))
    assert max(alone, key=alone.__getitem__) in (WIDE, "point")
    assert alone["stem"] < 0.1 * max(alone.values())
    exact, rounded = quantiser.write(tmp_path / "exact.onnx", []), quantiser.write(tmp_path / "all.onnx")
    inputs = task.examples(256)
    actual = divergence(run(exact, inputs).astype(np.float64), run(rounded, inputs).astype(np.float64))
    assert 0.5 < sensitivity.loss(np.ones(len(alone), bool)) / actual < 2.0


def test_outputs_that_are_no_classes_have_a_squared_loss(quantiser: Quantiser, task: ImageClassification) -> None:
    inputs = [{"x": task.examples(16)}]
    squared = layer_sensitivity(quantiser, inputs)
    classes = layer_sensitivity(quantiser, inputs, classes=10)
    assert np.trace(squared.losses) > 2 * np.trace(classes.losses)


# ---- Order, bisection ---------------------------------------------------------------------------


def test_most_saved_per_millisecond_comes_first() -> None:
    form = Sensitivity(("a", "b", "c"), np.diag([4.0, 3.0, 1.0]))
    assert lifting_order(form, np.ones(3)) == ["a", "b", "c"]
    assert lifting_order(form, np.array([10.0, 1.0, 1.0])) == ["b", "c", "a"]
    assert lifting_order(form, np.array([1.0, 1.0, -5.0])) == ["c", "a", "b"]  # noise made it a gain: as good as free
    assert lifting_order(form, np.zeros(3)) == ["a", "b", "c"]


def test_the_order_knows_what_is_lifted_already() -> None:
    """a and b cost only together: once one is lifted, the other is no longer worth it."""
    together = Sensitivity(("a", "b", "c"), np.array([[0.1, 2.0, 0.0], [2.0, 0.1, 0.0], [0.0, 0.0, 1.0]]))
    assert lifting_order(together, np.ones(3)) == ["a", "c", "b"]


def test_bisection_finds_every_threshold_in_few_steps() -> None:
    for n in (1, 2, 7, 52):
        for least in range(n + 1):
            asked: list[int] = []

            def good(k: int, least: int = least, asked: list[int] = asked) -> bool:
                asked.append(k)
                return k >= least

            assert fewest(n, good) == least
            assert len(asked) <= math.ceil(math.log2(n + 1))


def test_what_is_lifted_needlessly_goes_back() -> None:
    assert needful(["a", "b", "c", "d"], lambda floats: {"a", "c"} <= set(floats)) == ["a", "c"]
    assert needful(["a", "b"], lambda floats: False) == ["a", "b"]
    assert needful([], lambda floats: True) == []


@pytest.mark.parametrize(("n", "chosen", "between"), [(52, 5, 10), (52, 0, 6), (52, 52, 6), (4, 2, 0), (1, 1, 3)])
def test_points_of_the_front(n: int, chosen: int, between: int) -> None:
    counts = front_counts(n, chosen, between)
    assert counts == sorted(set(counts))
    assert {0, chosen, n} <= set(counts) <= set(range(n + 1))
    assert len(counts) <= between + 3


# ---- The whole ----------------------------------------------------------------------------------


class PricedDevice(FakeDevice):
    """1 ms, and a tenth for each layer in floats."""

    precision = "per_layer"

    def __init__(self) -> None:
        super().__init__()
        self.latency = lambda name: 1.0 + 0.1 * (1 if "without" in name else int(name.split("-")[1]))


def chosen_by(
    quantiser: Quantiser, task: ImageClassification, network: Path, folder: Path, device: Any = None
) -> MixedPrecision:
    from gnomon.devices.onnx_file import deployable_from_onnx

    return MixedPrecision(
        quantiser, task, device or PricedDevice(), Protocol(), deployable_from_onnx(network, batch=1), folder
    )


def floats_in(path: Path) -> set[str]:
    """Layers of a file that read no dequantised weights."""
    nodes = onnx.load(path).graph.node
    integers = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    return {n.name for n in nodes if n.op_type in ("Conv", "MatMul") and n.input[1] not in integers}


def test_keeps_the_quality_with_the_layers_that_need_it(
    quantiser: Quantiser, sensitivity: Sensitivity, task: ImageClassification, network: Path, tmp_path: Path
) -> None:
    result = chosen_by(quantiser, task, network, tmp_path).choose(sensitivity, keep=0.99, between=2)
    accuracy = [point.validation["accuracy"] for point in result.points]
    assert accuracy[0] < 0.97 * accuracy[-1], "this network should suffer"
    mixed = result.points[result.chosen]
    assert mixed.validation["accuracy"] >= 0.99 * result.fp32.validation["accuracy"]
    assert 0 < len(mixed.floats) < len(result.layers)
    assert set(mixed.floats) <= {WIDE, "point"}
    for point in result.points:
        path = tmp_path / point.file
        assert floats_in(path) == set(point.floats)
        assert point.validation == task.score(path, "validation")
        assert point.test == task.score(path, "test")
        assert point.latency_ms == pytest.approx(1.0 + 0.1 * len(point.floats))
    assert result.int8.on_front
    assert sorted(result.order) == sorted(result.layers)
    assert result.order[: len(mixed.floats)] == mixed.floats
    assert MixedResult.from_json(result.to_json()) == result


def test_a_budget_that_int8_keeps_lifts_nothing(
    quantiser: Quantiser, sensitivity: Sensitivity, task: ImageClassification, network: Path, tmp_path: Path
) -> None:
    result = chosen_by(quantiser, task, network, tmp_path).choose(sensitivity, keep=0.1, between=0)
    assert result.chosen == 0
    assert result.points[0].floats == ()


def test_says_what_is_wrong(
    quantiser: Quantiser, sensitivity: Sensitivity, task: ImageClassification, network: Path, tmp_path: Path
) -> None:
    for keep in (0.0, 1.1):
        with pytest.raises(ConfigError, match="keep"):
            chosen_by(quantiser, task, network, tmp_path).choose(sensitivity, keep)
    with pytest.raises(ConfigError, match="between"):
        chosen_by(quantiser, task, network, tmp_path).choose(sensitivity, 0.9, between=-1)
    with pytest.raises(ConfigError, match=r"precision.*per_layer"):
        chosen_by(quantiser, task, network, tmp_path, OnnxRuntimeDevice(precision="int8"))
    with pytest.raises(ConfigError, match="onnxruntime"):
        mixed_precision(network, task, PricedDevice(), Protocol(), tmp_path)
    other = ImageClassification(Digits())
    other.examples = lambda n: np.zeros((n, 3, 8, 8), np.float32)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"task.*\(1, 8, 8\)"):
        mixed_precision(network, other, OnnxRuntimeDevice(precision="per_layer"), Protocol(), tmp_path)


def command(words: Sequence[str]) -> int:
    return main(
        ["quantise", "task=digits", "protocol=quick", "protocol.processes=1", "protocol.min_processes=1", *words]
    )


def test_the_command(network: Path, task: ImageClassification, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    to = tmp_path / "out"
    words = [f"from={network}", f"to={to}", "keep=0.98", "between=0", "per_channel=false", "--json"]
    assert command(words) == 0
    printed = json.loads(capsys.readouterr().out)
    written = MixedResult.from_dict(json.loads((to / "mixed_precision.json").read_text()))
    assert written == MixedResult.from_dict(printed)
    assert all(point.measurement is not None and point.latency_ms > 0 for point in written.points)
    assert written.points[0].measurement.setting.precision == "per_layer"  # type: ignore[union-attr]
    score = task.score(to / "model.mixed.onnx", "validation")
    assert score == written.points[written.chosen].validation


def test_the_command_says_what_it_needs(network: Path, capsys: pytest.CaptureFixture) -> None:
    assert command([]) == 2
    assert "from" in capsys.readouterr().err
    assert command([f"from={network}", "device=torch_cpu", "~device.precision"]) == 2
    assert "onnxruntime" in capsys.readouterr().err
