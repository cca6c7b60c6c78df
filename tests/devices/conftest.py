from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnomon.devices import Protocol
from gnomon.devices.local import LocalDevice
from gnomon.search_spaces import Deployable, Graph, TensorSpec, Workload

WORKLOAD = Workload((8, 16, 16))


def write_cnn(path: Path, width: int, layers: int, batch: int | str = 1) -> Path:
    """A chain of 3x3 convolutions ``(batch, 8, 16, 16)``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng, nodes, weights, current, channels = np.random.default_rng(0), [], [], "input", 8
    for layer in range(layers):
        kernel = (rng.standard_normal((width, channels, 3, 3)) * 0.1).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"k{layer}"))
        output = "output" if layer == layers - 1 else f"x{layer}"
        nodes.append(helper.make_node("Conv", [current, f"k{layer}"], [output], pads=[1] * 4))
        current, channels = output, width
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 8, 16, 16])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, width, 16, 16])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def onnx_models(tmp_path: Path) -> list[Deployable]:
    """Three models, the last with about 60 times the work of the first."""
    models = []
    for name, width, layers in (("small", 8, 2), ("middle", 16, 2), ("large", 32, 8)):
        path = write_cnn(tmp_path / f"{name}.onnx", width, layers)
        graph = Graph((TensorSpec("input", (1, 8, 16, 16)),), ("output",), onnx_path=path)
        models.append(Deployable(name, WORKLOAD, {"main": graph}))
    return models


@pytest.fixture
def quick() -> Protocol:
    return Protocol(
        processes=2,
        min_processes=2,
        warmup_runs=3,
        min_runs=10,
        max_runs=200,
        time_cap_s=0.02,
        target_interval=0.5,
        timeout_s=1.5,
    )


@pytest.fixture
def once(quick: Protocol) -> Protocol:
    return replace(quick, processes=1, min_processes=1)


class MisbehavingDevice(LocalDevice):
    name = "misbehaving"
    accepts = "onnx"
    runner = "misbehaving.MisbehavingRunner"

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options

    @classmethod
    def unavailable(cls) -> str | None:
        return None

    def options(self) -> Mapping[str, Any]:
        return self._options


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., MisbehavingDevice]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "doubles"))
    return MisbehavingDevice


@pytest.fixture
def named() -> Callable[[Sequence[str]], list[Deployable]]:
    """Deployables for the misbehaving runner."""
    graph = Graph((TensorSpec("input", (1, 2)),), ("output",))
    return lambda names: [Deployable(name, Workload((2,)), {"main": graph}) for name in names]


@pytest.fixture
def cnn_file() -> Callable[..., Path]:
    """:func:`write_cnn`, for test files, which cannot import this one."""
    return write_cnn


@pytest.fixture
def odd_graphs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makers of deployables that are no images."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "doubles"))
    return importlib.import_module("odd_graphs")


@pytest.fixture
def busy_threads(tmp_path: Path) -> Callable[[LocalDevice, Deployable, int], int]:
    """How many threads of a fresh process compute while it runs a model."""

    def count(device: LocalDevice, model: Deployable, threads: int, runs: int = 200) -> int:
        folder = tmp_path / f"threads{threads}"
        folder.mkdir()
        job = device.prepare(model, folder).to_dict()
        request = {"runner": device.runner, "threads": threads, "options": dict(device.options()), "job": job}
        script = Path(__file__).parent / "doubles" / "count_threads.py"
        # The limits that the measuring process sets, too: a runtime may look at them instead of its own option.
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        result = subprocess.run(
            [sys.executable, str(script)],
            input=json.dumps({**request, "runs": runs}),
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return int(result.stdout.split()[-1])

    return count
