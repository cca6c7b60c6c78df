"""LiteRT, the process that converts for it, and ONNX files as torch modules."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from gnomon.devices.answers import random_input, read_answers, relative_error, write_answers
from gnomon.devices.converter_process import ConverterProcess
from gnomon.devices.litert import LiteRTDevice, default_python
from gnomon.devices.onnx_module import OPERATORS, OnnxModule, average_pool_without_padding
from gnomon.errors import ConfigError, MeasurementError
from gnomon.testing import DeviceSuite

needs_runtime = pytest.mark.skipif(LiteRTDevice.unavailable() is not None, reason=f"{LiteRTDevice.unavailable()}")


@pytest.fixture(scope="module")
def shared_device():
    """One for all tests: its converter takes long to start."""
    return LiteRTDevice()


@pytest.mark.runtime
@needs_runtime
class TestLiteRT(DeviceSuite):
    @pytest.fixture
    def device(self, shared_device):
        return shared_device

    @pytest.fixture
    def deployables(self, onnx_models):
        return onnx_models

    @pytest.fixture
    def variants(self):
        return [LiteRTDevice(precision="int8"), LiteRTDevice(delegate="none")]


@pytest.mark.runtime
@needs_runtime
def test_int8_takes_floats_and_agrees_with_the_reference_kernels(onnx_models, once):
    device = LiteRTDevice(precision="int8", calibration_samples=4)
    (result,) = device.measure(onnx_models[:1], once)
    assert result.verdict != "failed", result.error
    question = np.random.default_rng(5).standard_normal((1, 1, 8, 16, 16)).astype(np.float32)
    answer = device.answers(onnx_models[0], {"input": question})["output"]
    exact = OnnxModule(onnx_models[0].graphs["main"].onnx_path)(torch.from_numpy(question[0])).numpy()
    assert answer.dtype == np.float32
    error = np.sqrt(np.mean((answer[0] - exact) ** 2) / np.mean(exact**2))
    assert 1e-4 < error < 0.1, "not the answers of eight bits"


def test_without_a_converter_it_says_how_to_make_one(tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    python = tmp_path / "nowhere" / "bin" / "python"
    monkeypatch.setenv("GNOMON_LITERT_PYTHON", str(python))
    reason = LiteRTDevice.unavailable()
    assert reason is not None
    assert f"python -m venv {python.parent.parent} && {python} -m pip install" in reason
    assert default_python() == python


def test_a_given_converter_counts_instead_of_the_default(tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    python = tmp_path / "env" / "bin" / "python"
    (tmp_path / "env" / "lib" / "python3.11" / "site-packages" / "litert_torch").mkdir(parents=True)
    python.parent.mkdir()
    python.touch()
    monkeypatch.setenv("GNOMON_LITERT_PYTHON", str(tmp_path / "none"))
    assert LiteRTDevice(converter_python=str(python)).unavailable() is None
    assert LiteRTDevice.unavailable() is not None


@pytest.mark.parametrize("options", [{"delegate": "gpu"}, {"calibration_samples": 0}, {"precision": "fp16"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        LiteRTDevice(**options)


# ---- The converter's process ---------------------------------------------------------------

_CONVERTER = """
import json, os, sys, time
print(json.dumps({"ready": 1}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "crash":
        os.abort()
    if request["do"] == "fail":
        print(json.dumps({"error": "no such operator"}), flush=True)
    elif request["do"] == "hang":
        time.sleep(60)
    elif request["do"] == "chatter":
        print("this is not JSON", flush=True)
    else:
        print(json.dumps({"pid": os.getpid()}), flush=True)
"""


@pytest.fixture
def converter():
    process = ConverterProcess([sys.executable, "-c", _CONVERTER], what="the converter", limit_s=1.0)
    yield process
    process.stop()


def test_one_process_serves_many_requests(converter):
    assert converter(do="work")["pid"] == converter(do="work")["pid"]


@pytest.mark.parametrize(
    ("deed", "complaint"),
    [("crash", "crashed with SIGABRT"), ("hang", "gave no result within 1 s"), ("fail", "no such operator")],
)
def test_a_failure_costs_one_request(converter, deed, complaint):
    first = converter(do="work")["pid"]
    with pytest.raises(MeasurementError, match=complaint):
        converter(do=deed)
    assert (converter(do="work")["pid"] == first) == (deed == "fail")


def test_the_process_goes_with_its_owner():
    process = ConverterProcess([sys.executable, "-c", _CONVERTER], what="the converter", limit_s=1.0)
    pid = process(do="work")["pid"]
    del process
    time.sleep(0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_converter_that_does_not_start_says_so(tmp_path):
    with pytest.raises(MeasurementError, match="did not start"):
        ConverterProcess([str(tmp_path / "none")], what="it", limit_s=1.0)(do="work")
    with pytest.raises(MeasurementError, match="failed with exit code 1: ModuleNotFoundError"):
        ConverterProcess([sys.executable, "-c", "import no_such_module"], what="it", limit_s=1.0)(do="work")


# ---- ONNX files as torch modules -----------------------------------------------------------


def _node_model(path: Path, node, shape, weights=()) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


_RNG = np.random.default_rng(0)
_KERNEL = ("w", _RNG.standard_normal((4, 4, 3, 3)).astype(np.float32))
_CASES = {
    "conv, padded on one side": ("Conv", ["x", "w"], {"pads": [0, 0, 1, 1], "strides": [2, 2]}, [_KERNEL]),
    "pool that does not count padding": ("AveragePool", ["x"], {"kernel_shape": [3, 3], "pads": [1] * 4}, []),
    "the same by 2": ("AveragePool", ["x"], {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2]}, []),
    "pool that counts padding": (
        "AveragePool",
        ["x"],
        {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2], "count_include_pad": 1},
        [],
    ),
    "max pool, rounded up": ("MaxPool", ["x"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, []),
    "max pool, padded on one side": (
        "MaxPool",
        ["x"],
        {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1]},
        [],
    ),
    "hard sigmoid, ONNX's default": ("HardSigmoid", ["x"], {}, []),
    "hard swish": ("HardSwish", ["x"], {}, []),
    "clip below": ("Clip", ["x", "low"], {}, [("low", np.array(0.1, np.float32))]),
    "mean": ("ReduceMean", ["x", "axes"], {"keepdims": 0}, [("axes", np.array([2, 3]))]),
    "slice": (
        "Slice",
        ["x", "s", "e", "a", "t"],
        {},
        [("s", np.array([1])), ("e", np.array([9])), ("a", np.array([3])), ("t", np.array([3]))],
    ),
    "pad": ("Pad", ["x", "p"], {}, [("p", np.array([0, 1, 2, 0, 0, 0, 1, 3]))]),
    "reshape": ("Reshape", ["x", "s"], {}, [("s", np.array([0, 2, -1]))]),
    "transpose": ("Transpose", ["x"], {"perm": [0, 2, 3, 1]}, []),
    "softmax": ("Softmax", ["x"], {"axis": 1}, []),
    "gelu": ("Gelu", ["x"], {"approximate": "tanh"}, []),
}


@pytest.mark.parametrize("operators", [OPERATORS, {**OPERATORS, "AveragePool": average_pool_without_padding}])
@pytest.mark.parametrize("case", _CASES)
def test_operators_answer_like_onnx_runtime(tmp_path, case, operators):
    import onnxruntime
    from onnx import helper

    kind, inputs, attributes, weights = _CASES[case]
    path = _node_model(
        tmp_path / "one.onnx", helper.make_node(kind, inputs, ["y"], **attributes), (2, 4, 10, 9), weights
    )
    x = _RNG.standard_normal((2, 4, 10, 9)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    found = OnnxModule(path, operators)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_every_cell_of_nasbench201_is_known(tmp_path):
    """Cells without a path to their output hold zeros, in a shape that the graph computes."""
    from gnomon.export import export_deployable
    from gnomon.search_spaces.nasbench201 import NASBench201

    space = NASBench201()
    for row in (*space.sample(4, np.random.default_rng(1)), np.zeros(len(space.decisions), int)):
        deployable = export_deployable(space.deployable(space.config(row)), tmp_path, direct=True)
        graph = deployable.graphs["main"]
        expected = read_answers(write_answers(tmp_path / "answers.npz", graph))[graph.outputs[0]]
        found = OnnxModule(graph.onnx_path).eval()(torch.from_numpy(random_input(graph.inputs[0])))
        assert relative_error(found.numpy(), expected) < 1e-4


def test_an_unknown_operator_is_named(tmp_path):
    from onnx import helper

    path = _node_model(tmp_path / "one.onnx", helper.make_node("Erf", ["x"], ["y"]), (1, 2))
    with pytest.raises(MeasurementError, match="Erf"):
        OnnxModule(path)
