"""ONNX files that are no images: tokens, states, masks, free axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gnomon.search_spaces import Call, Deployable, Graph, TensorSpec, Workload

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
VOCABULARY, WIDTH = 16, 8


def _write(path: Path, nodes, inputs, outputs, constants) -> Path:
    values = [[helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in v] for v in (inputs, outputs)]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, path.stem, *values, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _single(path: Path, inputs: Sequence[TensorSpec], output: str) -> Deployable:
    workload = Workload(inputs[0].shape[1:], batch=inputs[0].shape[0])
    return Deployable(path.stem, workload, {"main": Graph(tuple(inputs), (output,), onnx_path=path)})


def weights(*shape: int) -> np.ndarray:
    """The same for the same shape."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def tokens(folder: Path, vocabulary: int = VOCABULARY) -> Deployable:
    """An embedding and a linear layer on int64 tokens, batch and length free in the file."""
    path = _write(
        folder / "tokens.onnx",
        [helper.make_node("Gather", ["table", "tokens"], ["e"]), helper.make_node("MatMul", ["e", "w"], ["y"])],
        [("tokens", INT64, ["batch", "length"])],
        [("y", FLOAT, ["batch", "length", WIDTH])],
        {"table": weights(vocabulary, WIDTH), "w": weights(WIDTH, WIDTH)},
    )
    return _single(path, [TensorSpec("tokens", (1, 7), "int64", {0: "batch", 1: "length"})], "y")


def mask(folder: Path) -> Deployable:
    """A boolean input beside a float."""
    path = _write(
        folder / "mask.onnx",
        [helper.make_node("Where", ["mask", "x", "zero"], ["z"]), helper.make_node("MatMul", ["z", "w"], ["y"])],
        [("x", FLOAT, ["batch", WIDTH]), ("mask", BOOL, ["batch", WIDTH])],
        [("y", FLOAT, ["batch", WIDTH])],
        {"zero": np.zeros(1, np.float32), "w": weights(WIDTH, WIDTH)},
    )
    return _single(path, [TensorSpec("x", (2, WIDTH)), TensorSpec("mask", (2, WIDTH), "bool")], "y")


def encoder_and_step(folder: Path, batch: int = 1) -> Deployable:
    """Two graphs: an encoder, then four steps of a recurrence that starts from its output."""
    shared = {"w": weights(WIDTH, WIDTH)}
    encoder = _write(
        folder / "encoder.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["memory"])],
        [("x", FLOAT, ["batch", WIDTH])],
        [("memory", FLOAT, ["batch", WIDTH])],
        shared,
    )
    step = _write(
        folder / "step.onnx",
        [
            helper.make_node("MatMul", ["state", "w"], ["s"]),
            helper.make_node("Tanh", ["s"], ["next"]),
            helper.make_node("Add", ["next", "x"], ["y"]),
        ],
        [("x", FLOAT, ["batch", WIDTH]), ("state", FLOAT, ["batch", WIDTH])],
        [("y", FLOAT, ["batch", WIDTH]), ("next", FLOAT, ["batch", WIDTH])],
        shared,
    )
    x, state = TensorSpec("x", (batch, WIDTH), "float32", {0: "batch"}), TensorSpec("state", (batch, WIDTH))
    graphs = {
        "encoder": Graph((x,), ("memory",), onnx_path=encoder),
        "step": Graph((x, state), ("y", "next"), onnx_path=step),
    }
    plan = (Call("encoder", feeds={"memory": "state"}), Call("step", 4, {"next": "state"}))
    return Deployable("encoder_and_step", Workload((WIDTH,), batch=batch), graphs, plan)
