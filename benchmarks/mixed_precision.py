"""Mixed fp32 and int8 on a network that uniform int8 hurts: ``python -m benchmarks.mixed_precision``.

The network is MobileNetV2 (width 0.75) as ``space=mobile_cnn`` builds it, trained on the animal silhouettes by the
recipe of ``conf/task/animals.yaml``; nothing in it was changed to make it fragile. Its batch norms, folded into
depthwise convolutions, leave channels whose weights differ a hundredfold (``largest_channel_ratio``), and one scale
a tensor, which many accelerators require, has to span them.

Layers are chosen by training examples and the validation split; ``accuracy_ratio_to_fp32`` is of the test split.
Half of the budget of 0.5 % is spent on validation: the other half is for what differs between the splits. Both splits
are larger than the task's own: half a per cent of its 1,459 test images is less than what eight bits change by
chance.
``front_points_below_uniform`` counts points of the mixed front that uniform fp32 or int8 beats in latency and accuracy.
Needs the data: ``pip install --no-deps animal-mnist==0.4``. Training takes minutes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks._common import ROOT, main
from gnomon.conf.compose import compose
from gnomon.devices import Protocol
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.export import Quantisation, Quantiser, export_deployable
from gnomon.search.instantiate import instantiate
from gnomon.search.mixed_precision import MixedPoint, MixedResult, mixed_precision
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.tasks import Task
from gnomon.tasks.torch_state import seeded, torch_threads

EPOCHS = 8.0
FRACTIONS = "[0.5,0.2,0.3]"
KEEP = 0.9975
SEED = 0
PICTURE = ROOT / "docs" / "images" / "mixed_precision.png"


def run(quick: bool) -> dict[str, float]:
    """Mixed precision against uniform fp32 and uniform int8."""
    task: Task = instantiate(compose("search", ["task=animals", f"task.fractions={FRACTIONS}"]).task, "task")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = _trained(task, 1.0 if quick else EPOCHS, folder)
        result = mixed_precision(
            source,
            task,
            OnnxRuntimeDevice(precision="per_layer"),
            Protocol(processes=4) if quick else Protocol(),
            folder / "mixed",
            keep=KEEP,
            how=Quantisation(per_channel=False),
            between=2 if quick else 10,
            on_step=print,
        )
        by_channel = task.score(_by_channel(source, task, folder), "test")["accuracy"]
        if not quick:
            _draw(result, PICTURE)
        ratio = _largest_channel_ratio(source, folder)
    mixed, int8, fp32 = result.points[result.chosen], result.int8, result.fp32
    metrics = {
        "latency_ratio_to_int8": mixed.latency_ms / int8.latency_ms,
        "accuracy_ratio_to_fp32": mixed.test["accuracy"] / fp32.test["accuracy"],
        "int8_points_lost": 100 * (fp32.test["accuracy"] - int8.test["accuracy"]),
        "mixed_points_lost": 100 * (fp32.test["accuracy"] - mixed.test["accuracy"]),
        "int8_per_channel_points_lost": 100 * (fp32.test["accuracy"] - by_channel),
        "front_points_below_uniform": _below(result),
        "front_points": sum(point.on_front for point in result.points),
        "layers": len(result.layers),
        "largest_channel_ratio": ratio,
    }
    for label, point in (("int8", int8), ("mixed", mixed), ("fp32", fp32)):
        metrics |= {f"{label}.{key}": value for key, value in _figures(point).items()}
    for point in result.points:
        metrics |= {f"front.{len(point.floats)}.{key}": value for key, value in _figures(point).items()}
    return metrics


def _trained(task: Task, epochs: float, folder: Path) -> Path:
    """The trained network as an ONNX file."""
    space = MobileCNN(input_shape=task.input_shape, classes=len(task.labels), width=0.75)
    config = space.config(space.named_genotype("mobilenet_v2"))
    with seeded(SEED):
        module = space.build(config)
    with torch_threads(1):
        task.train(module, epochs, seed=SEED, progress=lambda spent, found: print(f"epoch {spent:g}: {found:.3f}"))
    exported = export_deployable(space.deployable(config), folder, modules={"main": module})
    path = exported.graphs["main"].onnx_path
    assert path is not None
    return path


def _by_channel(source: Path, task: Task, folder: Path) -> Path:
    """Uniform int8 with one scale a channel, which the device at hand allows, for comparison."""
    examples = task.examples(128)
    assert examples is not None
    return Quantiser(source, [{"input": examples}]).write(folder / "by_channel.onnx")


def _largest_channel_ratio(source: Path, folder: Path) -> float:
    """Largest weight of a depthwise convolution over the median channel's, in the worst layer."""
    from onnx import numpy_helper

    from gnomon.export.calibration import prepared

    model = prepared(source, folder)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    ratios = []
    for node in model.graph.node:
        kernel = numpy_helper.to_array(weights[node.input[1]]) if node.op_type == "Conv" else np.zeros((1, 2, 1, 1))
        if kernel.shape[1] == 1 and kernel.shape[0] > 1:
            channels = np.abs(kernel).max(axis=(1, 2, 3))
            ratios.append(float(channels.max() / np.median(channels)))
    return max(ratios)


def _figures(point: MixedPoint) -> Mapping[str, float]:
    return {
        "fp32_layers": len(point.floats),
        "latency_ms": point.latency_ms,
        "validation_accuracy": point.validation["accuracy"],
        "test_accuracy": point.test["accuracy"],
    }


def _below(result: MixedResult) -> int:
    """Points of the front, which validation chose, that a uniform point beats in latency and test accuracy."""
    uniform = (result.int8, result.fp32)
    return sum(
        any(u.latency_ms < p.latency_ms and u.test["accuracy"] > p.test["accuracy"] for u in uniform)
        for p in result.points
        if p.on_front
    )


def _draw(result: MixedResult, path: Path) -> None:
    from gnomon.reports import figure as style

    with style.drawing() as (figure, axes):
        for split, marker in (("validation", "o"), ("test", "s")):
            points = [(p.latency_ms, 100 * getattr(p, split)["accuracy"]) for p in result.points]
            axes.plot(*zip(*points, strict=True), marker=marker, linewidth=1, markersize=4, label=split)
            chosen = points[result.chosen]
            axes.plot(*chosen, marker="o", markersize=11, markerfacecolor="none", color="black", linewidth=0)
        for name, point, shift in (("int8", result.int8, (6, -10)), ("fp32", result.fp32, (-26, -14))):
            position = (point.latency_ms, 100 * point.test["accuracy"])
            axes.annotate(name, position, shift, textcoords="offset points")
        axes.set_xlabel("latency (ms)")
        axes.set_ylabel("accuracy (%)")
        axes.legend(title="circled: chosen", frameon=False)
        style.save(figure, path)


if __name__ == "__main__":
    main("mixed_precision", run, seeds=(SEED,))
