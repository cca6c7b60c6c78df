"""Measuring the same models twice beside a busy process: how far apart, and do the verdicts say so?

``python -m benchmarks.verify_repeat [--quick] [--json FILE]``
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks._common import main
from gnomon.devices import Protocol
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.records import STATISTICS, Measurement
from gnomon.search_spaces import Deployable, Graph, TensorSpec, Workload

LIMIT = 0.03
"""A repeat is to be within 3 %."""
WORKLOAD = Workload((1, 28, 28))
SHAPES = ((8, 2), (8, 4), (16, 2), (16, 4), (16, 8), (24, 4), (24, 8), (32, 4), (32, 8), (48, 4), (48, 6))
"""(width, blocks) of the models: 0.02 to 0.4 ms here."""
REPEATS = 4


def write_model(path: Path, width: int, blocks: int, seed: int) -> Deployable:
    """Inverted bottlenecks on 28x28 images: stem, ``blocks`` x (expand 4, depthwise 3x3, project), pool, classifier."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng, nodes, weights = np.random.default_rng(seed), [], []

    def weight(name: str, *shape: int) -> str:
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def add(kind: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def relu(name: str) -> str:
        return add("Relu", [name], f"{name}_relu")

    wide = 4 * width
    x = relu(add("Conv", ["input", weight("stem", width, 1, 3, 3)], "stem_out", strides=[2, 2], pads=[1] * 4))
    for b in range(blocks):
        y = relu(add("Conv", [x, weight(f"expand{b}", wide, width, 1, 1)], f"expanded{b}"))
        y = relu(add("Conv", [y, weight(f"depth{b}", wide, 1, 3, 3)], f"filtered{b}", group=wide, pads=[1] * 4))
        y = add("Conv", [y, weight(f"project{b}", width, wide, 1, 1)], f"projected{b}")
        x = add("Add", [x, y], f"block{b}")
    x = add("Flatten", [add("GlobalAveragePool", [x], "pooled")], "flat")
    add("Gemm", [x, weight("classifier", width, 10)], "output")
    graph = helper.make_graph(
        nodes,
        "bottlenecks",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 1, 28, 28])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 10])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    inputs = (TensorSpec("input", (1, *WORKLOAD.input_shape)),)
    return Deployable(f"w{width}b{blocks}", WORKLOAD, {"main": Graph(inputs, ("output",), onnx_path=path)})


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """Another process that computes all the time, wherever the system puts it."""
    work = "import numpy as np\na = np.ones((256, 256))\nwhile True: a @ a"
    process = subprocess.Popen([sys.executable, "-c", work])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def run(quick: bool) -> dict[str, float]:
    """Measures 11 small CNNs twice, one measurement after the other, beside a busy process."""
    protocol = Protocol()
    metrics: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, busy_process():
        models = [write_model(Path(folder) / f"{i}.onnx", *shape, seed=i) for i, shape in enumerate(SHAPES)]
        for name, changed in (("default", protocol), ("not_realtime", replace(protocol, realtime=False))):
            metrics |= _repeat(name, models, changed, 1 if quick else REPEATS)
    return metrics


def _repeat(name: str, models: Sequence[Deployable], protocol: Protocol, repeats: int) -> dict[str, float]:
    """Pairs of measurements, as ``<name>.<metric>``."""
    pairs: list[tuple[Measurement, Measurement]] = []
    seconds = []
    for repeat in range(repeats):
        both = []
        for half in range(2):
            start = time.monotonic()
            both.append(list(OnnxRuntimeDevice().measure(models, protocol, seed=2 * repeat + half)))
            seconds.append(time.monotonic() - start)
        pairs += zip(*both, strict=True)
    _show(name, pairs[-len(models) :])
    far = [abs(a.latency_ms / b.latency_ms - 1.0) for a, b in pairs]
    good = [a.verdict == b.verdict == "good" for a, b in pairs]
    in_interval = [a.interval is not None and a.interval[0] <= b.latency_ms <= a.interval[1] for a, b in pairs]
    metrics = {
        "pairs": len(pairs),
        "within_3_percent": float(np.mean([d <= LIMIT for d in far])),
        "worst_set_within_3_percent": min(
            float(np.mean([d <= LIMIT for d in far[i : i + len(models)]])) for i in range(0, len(far), len(models))
        ),
        "far_but_good": sum(d > LIMIT and g for d, g in zip(far, good, strict=True)),
        "good": float(np.mean([m.verdict == "good" for pair in pairs for m in pair])),
        "repeat_in_interval": float(np.mean(in_interval)),
        "difference_median_percent": 100 * float(np.median(far)),
        "difference_p90_percent": 100 * float(np.quantile(far, 0.9)),
        "difference_largest_percent": 100 * max(far),
        "seconds_mean": float(np.mean(seconds)),
        "seconds_longest": max(seconds),
        "processes_mean": float(np.mean([len(m.process_values) for pair in pairs for m in pair])),
        "realtime": float(np.mean([m.fingerprint.realtime for pair in pairs for m in pair])),
        "drift_largest": max(m.drift or 0.0 for pair in pairs for m in pair),
    }
    for statistic in STATISTICS:
        differences = [abs(getattr(a, statistic) / getattr(b, statistic) - 1.0) for a, b in pairs]
        metrics[f"if_{statistic}_within_3_percent"] = float(np.mean([d <= LIMIT for d in differences]))
    middle = [abs(np.median(a.process_values) / np.median(b.process_values) - 1.0) for a, b in pairs]
    metrics["if_median_over_processes_within_3_percent"] = float(np.mean([d <= LIMIT for d in middle]))
    return {f"{name}.{key}": float(value) for key, value in metrics.items()}


def _show(name: str, pairs: Sequence[tuple[Measurement, Measurement]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "first ms", "verdict", "second ms", "verdict", "apart", title=f"{name}: the last repeat")
    for a, b in pairs:
        apart = abs(a.latency_ms / b.latency_ms - 1.0)
        cells = (f"{a.latency_ms:.4f}", a.verdict, f"{b.latency_ms:.4f}", b.verdict, f"{apart:.2%}")
        table.add_row(a.architecture, *cells)
    Console().print(table)


if __name__ == "__main__":
    main("verify_repeat", run, seeds=range(2 * REPEATS))
