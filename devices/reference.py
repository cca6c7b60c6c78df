"""The fixed reference model that is timed between the models of a round.

It never changes, so that its latency says how fast the machine is at that moment.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..records import Workload
from ..search_spaces import Deployable, Graph, TensorSpec
from .jobs import CallJob, GraphJob, ModelJob, TensorJob

REFERENCE_NAME = "reference"
INPUT_SHAPE = (1, 16, 28, 28)
CHANNELS = 16
LAYERS = 4


def reference_job() -> ModelJob:
    """The reference as a module of the runner's own."""
    graph = GraphJob((TensorJob("input", INPUT_SHAPE),), ("output",))
    return ModelJob(REFERENCE_NAME, {"main": graph}, (CallJob("main"),), Workload(INPUT_SHAPE[1:]))


def reference_deployable(path: Path) -> Deployable:
    """The reference as an ONNX file, written to ``path``."""
    _write_onnx(path)
    graph = Graph((TensorSpec("input", INPUT_SHAPE),), ("output",), onnx_path=path)
    return Deployable(REFERENCE_NAME, Workload(INPUT_SHAPE[1:]), {"main": graph})


def _write_onnx(path: Path) -> None:
    """A few 3x3 convolutions with ReLU: about 7 million multiply-adds, a tenth of a millisecond."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights, current = [], [], "input"
    for layer in range(LAYERS):
        kernel = (rng.standard_normal((CHANNELS, CHANNELS, 3, 3)) / np.sqrt(9 * CHANNELS)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"kernel{layer}"))
        nodes.append(helper.make_node("Conv", [current, f"kernel{layer}"], [f"conv{layer}"], pads=[1, 1, 1, 1]))
        current = "output" if layer == LAYERS - 1 else f"relu{layer}"
        nodes.append(helper.make_node("Relu", [f"conv{layer}"], [current]))
    graph = helper.make_graph(
        nodes,
        REFERENCE_NAME,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, INPUT_SHAPE)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, INPUT_SHAPE)],
        weights,
    )
    # An old opset and IR version, so that every runtime's importer reads it.
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
