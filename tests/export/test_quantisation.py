"""Static quantisation: integers where they should be, answers that stay close, and any choice of layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gnomon.errors import ConfigError, ExportError
from gnomon.export import export_deployable
from gnomon.export.calibration import prepared
from gnomon.export.qdq import asymmetric_scale, symmetric_scales
from gnomon.export.quantisation import Quantisation, Quantiser, is_quantised, quantise
from gnomon.search_spaces.mobile_cnn import MobileCNN

SHAPE = (2, 3, 16, 16)
Arrays = dict[str, np.ndarray]


def inputs(n: int = 8, seed: int = 0, name: str = "x", shape: Sequence[int] = SHAPE) -> list[Arrays]:
    rng = np.random.default_rng(seed)
    return [{name: rng.standard_normal(shape).astype(np.float32)} for _ in range(n)]


def save(path: Path, nodes: list[Any], weights: Arrays, output: Sequence[Any], opset: int = 17) -> Path:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Convolution, depthwise convolution, residual sum, gate, pooling, dense: what small CNNs are made of."""
    rng = np.random.default_rng(0)
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "stem.w", "stem.b"], ["stem"], name="stem", pads=[1] * 4),
        node("Relu", ["stem"], ["a"]),
        node("Conv", ["a", "depthwise.w"], ["depthwise"], name="depthwise", pads=[1] * 4, group=8),
        node("Clip", ["depthwise", "zero", "six"], ["b"]),
        node("Conv", ["b", "point.w"], ["c"], name="point"),
        node("ReduceMean", ["c"], ["mean"], axes=[2, 3], keepdims=1),
        node("Conv", ["mean", "gate.w"], ["g"], name="gate"),
        node("HardSigmoid", ["g"], ["s"]),
        node("Mul", ["c", "s"], ["d"]),
        node("Add", ["a", "d"], ["e"]),
        node("Pad", ["e", "pads"], ["padded"]),
        node("MaxPool", ["padded"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        node("ReduceMean", ["m"], ["p"], axes=[2, 3], keepdims=0),
        node("Gemm", ["p", "head.w", "head.b"], ["y"], name="head", transB=1),
    ]
    constants = {
        "stem.w": weights(rng, 8, 3, 3, 3),
        "stem.b": weights(rng, 8),
        "depthwise.w": weights(rng, 8, 1, 3, 3),
        "point.w": weights(rng, 8, 8, 1, 1),
        "gate.w": weights(rng, 8, 8, 1, 1),
        "head.w": weights(rng, 5, 8),
        "head.b": weights(rng, 5),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    }
    return save(tmp_path / "network.onnx", nodes, constants, [2, 5])


def run(path: Path, feeds: Arrays, level: str = "ORT_ENABLE_ALL") -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def error(path: Path, reference: Path, level: str = "ORT_ENABLE_ALL", feeds: Arrays | None = None) -> float:
    """Relative RMS difference on inputs that were not calibrated on."""
    feeds = feeds or inputs(1, seed=99)[0]
    found, expected = run(path, feeds, level), run(reference, feeds)
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def executed(path: Path) -> Counter[str]:
    """Kernels that ONNX Runtime really runs."""
    target = path.with_suffix(".optimised.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(target).graph.node)


def test_everything_runs_in_integers_and_answers_alike(network: Path, tmp_path: Path) -> None:
    path = quantise(network, tmp_path / "q.onnx", inputs())
    kernels = executed(path)
    assert kernels["QLinearConv"] == 4
    assert kernels["QGemm"] == kernels["QLinearAdd"] == kernels["QLinearMul"] == 1
    assert kernels["QLinearGlobalAveragePool"] == 2
    assert not {"Conv", "Gemm", "Add", "Mul", "Relu", "Clip", "ReduceMean", "GlobalAveragePool"} & set(kernels)
    assert kernels["QuantizeLinear"] == 2  # the input and the gate
    assert 1e-4 < error(path, network) < 0.03
    assert error(path, network, "ORT_DISABLE_ALL") < 0.03


def test_weights_take_a_quarter(tmp_path: Path) -> None:
    kernel = weights(np.random.default_rng(0), 64, 3, 5, 5)
    path = save(tmp_path / "a.onnx", [helper.make_node("Conv", ["x", "w"], ["y"])], {"w": kernel}, [2, 64, 12, 12])
    small = quantise(path, tmp_path / "q.onnx", inputs())
    assert kernel.nbytes / 4 < small.stat().st_size < path.stat().st_size / 2
    assert executed(small)["QLinearConv"] == 1  # a last convolution has to round its result


@pytest.mark.parametrize("index", range(3))
def test_networks_of_the_space(index: int, tmp_path: Path) -> None:
    """As close as ONNX Runtime's own quantiser comes, or closer."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    space = MobileCNN(input_shape=(3, 32, 32), classes=10, width=0.5, blocks=4)
    row = space.sample(3, np.random.default_rng(5))[index]
    exported = export_deployable(space.deployable(space.config(row)), tmp_path, direct=True)
    path = exported.graphs["main"].onnx_path
    assert path is not None
    data = inputs(8, name="input", shape=(1, 3, 32, 32))
    ours = quantise(path, tmp_path / "ours.onnx", data)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        feeds = iter(data)

        def get_next(self) -> Arrays | None:
            return next(self.feeds, None)

    theirs = tmp_path / "theirs.onnx"
    quantize_static(path, theirs, Reader(), per_channel=True, activation_type=QuantType.QUInt8)
    fresh = [inputs(1, seed, "input", (1, 3, 32, 32))[0] for seed in range(20, 30)]
    ours_error = np.mean([error(ours, path, feeds=feeds) for feeds in fresh])
    theirs_error = np.mean([error(theirs, path, feeds=feeds) for feeds in fresh])
    assert ours_error < max(1.25 * theirs_error, 0.02)
    assert "Conv" not in executed(ours)


def test_any_choice_of_layers(network: Path, tmp_path: Path) -> None:
    quantiser = Quantiser(network, inputs())
    assert quantiser.layers == ("stem", "depthwise", "point", "gate", "head")
    none = quantiser.write(tmp_path / "none.onnx", [])
    assert not is_quantised(none)
    assert error(none, network) < 1e-5
    some = quantiser.write(tmp_path / "some.onnx", ["point", "head"])
    kernels = executed(some)
    assert kernels["QLinearConv"] == 1
    assert kernels["QGemm"] == 1
    assert kernels["QLinearAdd"] == 0  # one of its terms is in floats
    assert error(some, network) < 0.03
    with pytest.raises(ConfigError, match="nowhere"):
        quantiser.write(tmp_path / "x.onnx", ["nowhere"])


@pytest.mark.parametrize("layer", ["stem", "depthwise", "point", "gate", "head"])
def test_each_layer_alone(network: Path, tmp_path: Path, layer: str) -> None:
    path = Quantiser(network, inputs()).write(tmp_path / "q.onnx", [layer])
    kernels = executed(path)
    assert kernels["QLinearConv"] + kernels["QGemm"] == 1
    assert 1e-6 < error(path, network) < 0.03


def test_the_same_bytes_each_time(network: Path, tmp_path: Path) -> None:
    first = quantise(network, tmp_path / "a.onnx", inputs()).read_bytes()
    assert quantise(network, tmp_path / "b.onnx", inputs()).read_bytes() == first


def test_one_scale_a_tensor_loses_small_channels(tmp_path: Path) -> None:
    spread = np.geomspace(1e-3, 1.0, 8, dtype=np.float32)
    matrix = weights(np.random.default_rng(0), 16, 8) * spread
    path = save(tmp_path / "a.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": matrix}, (*SHAPE[:3], 8))
    errors = {}
    for per_channel in (True, False):
        quantised = quantise(path, tmp_path / "q.onnx", inputs(), Quantisation(per_channel=per_channel))
        feeds = inputs(1, seed=7)[0]
        difference = (run(quantised, feeds) - run(path, feeds)) / spread
        errors[per_channel] = float(np.sqrt(np.mean(difference**2, axis=(0, 1, 2)))[0])
    assert errors[False] > 20 * errors[True]


def test_seven_bits_are_coarser(network: Path, tmp_path: Path) -> None:
    seven = quantise(network, tmp_path / "7.onnx", inputs(), Quantisation(weight_bits=7))
    integers = [a for t in onnx.load(seven).graph.initializer if (a := numpy_helper.to_array(t)).dtype == np.int8]
    assert max(np.abs(array).max() for array in integers) == 63
    assert error(seven, network) < 0.05
    with pytest.raises(ConfigError, match="weight_bits"):
        Quantisation(weight_bits=4)


def test_a_tiny_channel_with_a_large_bias_does_not_overflow(tmp_path: Path) -> None:
    kernel = weights(np.random.default_rng(0), 4, 3, 3, 3)
    kernel[1] *= 1e-12
    nodes = [helper.make_node("Conv", ["x", "k", "b"], ["y"])]
    bias = np.array([0.0, 3.0, 0.1, 0.0], np.float32)
    path = save(tmp_path / "a.onnx", nodes, {"k": kernel, "b": bias}, [2, 4, 14, 14])
    found = run(quantise(path, tmp_path / "q.onnx", inputs()), inputs(1, seed=3)[0])
    np.testing.assert_allclose(found[:, 1], 3.0, atol=0.05)


def test_batch_norm_and_old_operator_sets(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    constants = {"k": weights(rng, 4, 3, 3, 3)} | {name: rng.random(4).astype(np.float32) + 0.5 for name in "sbmv"}
    nodes = [helper.make_node("Conv", ["x", "k"], ["h"]), helper.make_node("BatchNormalization", ["h", *"sbmv"], ["y"])]
    path = save(tmp_path / "old.onnx", nodes, constants, [2, 4, 14, 14], opset=11)
    quantised = quantise(path, tmp_path / "q.onnx", inputs())
    assert "BatchNormalization" not in executed(quantised)
    assert error(quantised, path) < 0.02


def test_what_cannot_be_quantised_stays(tmp_path: Path) -> None:
    """A product of two activations, and weights that are computed, keep their floats."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="dense"),
        node("Softmax", ["h"], ["s"]),
        node("MatMul", ["s", "h"], ["y"], name="attention"),
    ]
    path = save(tmp_path / "a.onnx", nodes, {"w": weights(np.random.default_rng(0), 16, 16)}, SHAPE)
    quantiser = Quantiser(path, inputs())
    assert quantiser.layers == ("dense",)
    assert error(quantiser.write(tmp_path / "q.onnx"), path) < 0.05


def test_says_what_is_wrong(network: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="calibration"):
        Quantiser(network, [])
    with pytest.raises(ExportError, match="does not run on the calibration data"):
        Quantiser(network, [{"x": np.zeros((1, 1), np.float32)}])
    bad = inputs(1)
    bad[0]["x"][0, 0, 0, 0] = np.inf
    with pytest.raises(ExportError, match="no finite range"):
        Quantiser(network, bad)
    done = quantise(network, tmp_path / "q.onnx", inputs())
    with pytest.raises(ExportError, match="quantised already"):
        Quantiser(done, inputs())
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match="cannot read"):
        Quantiser(tmp_path / "no.onnx", inputs())


def test_metadata_stay_and_the_granularity_is_added(network: Path, tmp_path: Path) -> None:
    model = onnx.load(network)
    model.metadata_props.add(key="gnomon.labels", value="[]")
    onnx.save(model, network)
    props = {p.key: p.value for p in onnx.load(quantise(network, tmp_path / "q.onnx", inputs())).metadata_props}
    assert props["gnomon.labels"] == "[]"
    assert Quantisation.from_json(props["gnomon.quantisation"]) == Quantisation()


def test_scales_hold_zero_and_the_ends() -> None:
    scale, zero = asymmetric_scale(-1.0, 3.0)
    assert abs(float(scale) * 255 - 4.0) < 1e-5
    assert zero == 64
    assert asymmetric_scale(0.5, 3.0)[1] == 0
    assert np.float32(asymmetric_scale(0.0, 6.0)[0] * 255) <= np.float32(6.0)
    assert asymmetric_scale(0.0, 0.0)[0] > 0
    kernel = np.array([[1.0, -2.0], [0.0, 0.0]])
    assert symmetric_scales(kernel, 0, 127)[0] == np.float32(2 / 127)
    assert symmetric_scales(kernel, None, 127) == np.float32(2 / 127)


def test_means_over_positions_become_poolings(network: Path, tmp_path: Path) -> None:
    kinds = Counter(node.op_type for node in prepared(network, tmp_path).graph.node)
    assert kinds["GlobalAveragePool"] == 2
    assert kinds["ReduceMean"] == 0
