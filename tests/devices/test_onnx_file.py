"""Anybody's ONNX file: what is read from it, and what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnomon.devices.onnx_file import deployable_from_onnx
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.errors import ConfigError, ExportError


def write(path: Path, *inputs: tuple[str, int, list]) -> Path:
    """A model that passes its inputs on; ``inputs`` are (name, element type, shape)."""
    import onnx
    from onnx import helper

    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(f"{name}_out", kind, None) for name, kind, _ in inputs],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


FLOAT, INT64 = 1, 7


def test_fixed_shapes(tmp_path):
    deployable = deployable_from_onnx(write(tmp_path / "m.onnx", ("x", FLOAT, [4, 3, 8, 8]), ("t", INT64, [4, 7])))
    assert deployable.name == "m.onnx"
    assert (deployable.workload.batch, deployable.workload.input_shape) == (4, (3, 8, 8))
    x, t = deployable.graphs["main"].inputs
    assert (x.shape, x.dtype, t.shape, t.dtype) == ((4, 3, 8, 8), "float32", (4, 7), "int64")
    assert deployable.graphs["main"].outputs == ("x_out", "t_out")


def test_symbolic_batch_and_sizes(tmp_path):
    path = write(tmp_path / "m.onnx", ("x", FLOAT, ["batch", 3, "height", "width"]))
    deployable = deployable_from_onnx(path, batch=2, sizes={"height": 16, "width": 24}, name="mine")
    (x,) = deployable.graphs["main"].inputs
    assert x.shape == (2, 3, 16, 24)
    assert dict(x.dynamic_axes) == {0: "batch", 2: "height", 3: "width"}
    assert (deployable.name, deployable.workload.batch) == ("mine", 2)
    assert deployable_from_onnx(path, sizes={"height": 1, "width": 1}).workload.batch == 1


def test_a_missing_size_is_asked_for(tmp_path):
    path = write(tmp_path / "m.onnx", ("x", FLOAT, ["batch", 3, "height", 8]))
    with pytest.raises(ConfigError, match=r"axis 2 of input 'x' has no size.*\+sizes\.height=32"):
        deployable_from_onnx(path)


def test_a_fixed_batch_cannot_be_changed(tmp_path):
    path = write(tmp_path / "m.onnx", ("x", FLOAT, [1, 3]))
    with pytest.raises(ConfigError, match=r"batch=2.*fixed batch.*allowed: 1"):
        deployable_from_onnx(path, batch=2)


def test_bad_files(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        deployable_from_onnx(tmp_path / "none.onnx")
    for content in (b"", b"not an ONNX model, but text"):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(ExportError, match="not an ONNX model"):
            deployable_from_onnx(tmp_path / "bad.onnx")
    with pytest.raises(ConfigError, match="must be positive"):
        deployable_from_onnx(write(tmp_path / "m.onnx", ("x", FLOAT, [1])), batch=0)


def test_it_runs(tmp_path, once):
    path = write(tmp_path / "m.onnx", ("x", FLOAT, ["batch", 3, "n"]), ("t", INT64, ["batch", "n"]))
    (result,) = OnnxRuntimeDevice().measure([deployable_from_onnx(path, batch=2, sizes={"n": 5})], once)
    assert result.verdict != "failed", result.error
    assert result.setting.workload.batch == 2
