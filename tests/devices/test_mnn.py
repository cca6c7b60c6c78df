"""MNN: the suite, and what its tools do silently."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gnomon.devices import mnn
from gnomon.devices.answers import random_input, read_answers, relative_error
from gnomon.devices.mnn import MNNDevice, MNNRunner
from gnomon.devices.mnn_convert import without_channel_pads
from gnomon.devices.onnx_file import deployable_from_onnx
from gnomon.devices.runner import Session
from gnomon.errors import ConfigError, MeasurementError
from gnomon.search_spaces import Deployable, Graph, TensorSpec, Workload
from gnomon.testing import DeviceSuite

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(MNNDevice.unavailable() is not None, reason=f"{MNNDevice.unavailable()}"),
]


class TestMNN(DeviceSuite):
    @pytest.fixture
    def device(self):
        return MNNDevice()

    @pytest.fixture
    def deployables(self, onnx_models):
        return onnx_models

    @pytest.fixture
    def variants(self):
        threads = MNNDevice()
        threads.threads = 2  # whatever this machine has
        return [threads]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_obeyed(busy_threads, onnx_models, threads):
    assert busy_threads(MNNDevice(), onnx_models[-1], threads) == threads


def test_precision_is_high(onnx_models, tmp_path):
    assert MNNRunner(1).session_config()["precision"] == "high"
    graph = (job := MNNDevice().prepare(onnx_models[-1], tmp_path)).graphs["main"]
    found = MNNRunner(1).load(graph, job)({"input": random_input(graph.inputs[0])})[0]
    assert relative_error(found, read_answers(graph.answers)["output"]) < 1e-5


@pytest.mark.parametrize("batch", [1, 3])
def test_a_free_batch_is_run_at_the_jobs(tmp_path, cnn_file, batch):
    job = MNNDevice().prepare(deployable_from_onnx(cnn_file(tmp_path / "f.onnx", 8, 2, "batch"), batch=batch), tmp_path)
    Session(MNNRunner(1), job).check()


def test_other_inputs(odd_graphs, tmp_path):
    for make in (odd_graphs.tokens, odd_graphs.mask, odd_graphs.encoder_and_step):
        job = MNNDevice().prepare(make(tmp_path), tmp_path)
        Session(MNNRunner(1), job).check()


def test_a_dtype_that_it_lacks_is_named(onnx_models, tmp_path):
    path = onnx_models[0].graphs["main"].onnx_path
    graph = Graph((TensorSpec("input", (1, 8, 16, 16), "float64"),), ("output",), onnx_path=path)
    with pytest.raises(MeasurementError, match="dtype='float64': MNN does not take the dtype of input 'input'"):
        MNNDevice().convert(graph, tmp_path)


def test_converting_installs_and_reports_nothing(onnx_models, tmp_path, monkeypatch):
    """MNN's own command runs the ``pip`` that it finds, to install what reports the conversion to a server."""
    marker, programs = tmp_path / "marker", tmp_path / "bin"
    programs.mkdir()
    (programs / "pip").write_text(f"#!/bin/sh\ntouch {marker}\n")
    (programs / "pip").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    MNNDevice().prepare(onnx_models[0], tmp_path)
    assert not marker.exists()
    assert (tmp_path / "main" / "model.mnn").is_file()


def test_a_hang_of_the_converter_ends(onnx_models, tmp_path, monkeypatch):
    monkeypatch.setattr(mnn, "CONVERT_LIMIT_S", 0.01)
    with pytest.raises(MeasurementError, match=r"MNN's converter gave no result within 0\.01 s"):
        MNNDevice().prepare(onnx_models[0], tmp_path)


# ---- Padding of channels -------------------------------------------------------------------


def padding(folder: Path, pads: list[int], mode: str = "constant", value: float | None = None) -> Deployable:
    """A convolution to 12 channels, then a padding."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.random.default_rng(0).standard_normal((12, 8, 1, 1)).astype(np.float32)
    weights = {"kernel": kernel, "pads": np.array(pads)}
    weights |= {} if value is None else {"value": np.array(value, np.float32)}
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["x"]),
        helper.make_node("Pad", ["x", "pads", *(["value"] if value is not None else [])], ["output"], mode=mode),
    ]
    shape = ["batch", 8, 7, 7]
    graph = helper.make_graph(
        nodes,
        "padding",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = folder / "padding.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    spec = TensorSpec("input", (2, 8, 7, 7), "float32", {0: "batch"})
    return Deployable("padding", Workload((8, 7, 7), batch=2), {"main": Graph((spec,), ("output",), onnx_path=path)})


@pytest.mark.parametrize(
    ("pads", "more", "operators"),
    [
        ([0, 0, 0, 0, 0, 20, 0, 0], {}, ["Conv", "Concat"]),
        ([0, 4, 0, 0, 0, 20, 0, 0], {"value": 0.0}, ["Conv", "Concat"]),
        ([0, 0, 1, 1, 0, 0, 1, 1], {}, ["Conv", "Pad"]),
        ([0, 0, 0, 0, 0, 20, 0, 0], {"value": 1.0}, ["Conv", "Pad"]),
        ([0, 0, 1, 1, 0, 0, 1, 1], {"mode": "reflect"}, ["Conv", "Pad"]),
    ],
)
def test_padding_channels_with_zeros_becomes_a_concatenation(tmp_path, pads, more, operators):
    import onnx

    model = padding(tmp_path, pads, **more)
    loaded = onnx.load(model.graphs["main"].onnx_path)
    changed = without_channel_pads(loaded, {"input": (2, 8, 7, 7)})
    assert [node.op_type for node in changed.graph.node] == operators
    Session(MNNRunner(1), MNNDevice().prepare(model, tmp_path)).check()


def test_mobile_cnn_with_padded_channels_answers_right(tmp_path):
    """The network in which the fault of MNN's padding was found: 16 % off."""
    from gnomon.search_spaces.mobile_cnn import MobileCNN

    space = MobileCNN(input_shape=(1, 28, 28), classes=10, width=0.5, blocks=5)
    row = space.sample(6, np.random.default_rng(5))[1]
    job = MNNDevice().prepare(space.deployable(space.config(row)), tmp_path)
    assert "Concat" in {node.op_type for node in _plain(tmp_path).graph.node}
    Session(MNNRunner(1), job).check()


def _plain(folder: Path):
    import onnx

    return onnx.load(folder / "main" / "model.onnx")


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match=r"device\.precision='int8'"):
        MNNDevice(precision="int8")


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(mnn, "find_spec", lambda name: None)
    assert MNNDevice.unavailable() == "MNN not installed: pip install 'gnomon-nas[mnn]'"
