"""Mixed fp32 and int8 on networks that uniform int8 hurts: ``python -m benchmarks.mixed_precision``.

The networks are MobileNetV2 (width 0.75) as ``space=mobile_cnn`` builds it, trained from two seeds on the animal
silhouettes by the recipe of ``conf/task/animals.yaml``; nothing in them was changed to make them fragile. Batch norms,
folded into depthwise convolutions, leave channels whose weights differ a hundredfold (``largest_channel_ratio``), and
one scale a tensor, which many accelerators require, has to span them. Weights have 7 of the 8 bits, as x86 processors
without VNNI need. With 8 bits and one scale a tensor the loss depends on the training; ``int8_8_bits_points_lost``
tells, and ``int8_per_channel_points_lost`` what 8 bits and one scale a channel lose.

Layers are chosen by training examples and the validation split; ``accuracy_ratio_to_fp32`` is of the test split.
Half of the budget of 0.5 % is spent on validation: the other half is for what differs between the splits. Both splits
are larger than the task's own: half a per cent of its 1,459 test images is less than what eight bits change by chance.
Figures without a seed are means over the networks. ``front_points_below_uniform`` counts points of the front (which
validation chose) that uniform fp32 or int8 beats in latency and in test accuracy.
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
from gnomon.search.pareto import non_dominated
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.tasks import Task
from gnomon.tasks.torch_state import seeded, torch_threads

EPOCHS = 6.0
FRACTIONS = "[0.5,0.2,0.3]"
HOW = Quantisation(per_channel=False, weight_bits=7)
KEEP = 0.9975
SEEDS = (0, 1)
PICTURE = ROOT / "docs" / "images" / "mixed_precision.png"


def run(quick: bool) -> dict[str, float]:
    """Mixed precision against uniform fp32 and uniform int8."""
    task: Task = instantiate(compose("search", ["task=animals", f"task.fractions={FRACTIONS}"]).task, "task")
    each = {f"seed{seed}": _network(task, seed, quick) for seed in (SEEDS[:1] if quick else SEEDS)}
    shared = [name for name in next(iter(each.values())) if not name.startswith("front.")]
    means = {name: float(np.mean([metrics[name] for metrics in each.values()])) for name in shared}
    all_metrics = means | {f"{seed}.{name}": value for seed, metrics in each.items() for name, value in metrics.items()}
    if not quick:
        _draw(all_metrics, PICTURE)
    return all_metrics


def _network(task: Task, seed: int, quick: bool) -> dict[str, float]:
    """One network's metrics."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = _trained(task, 1.0 if quick else EPOCHS, seed, folder)
        result = mixed_precision(
            source,
            task,
            OnnxRuntimeDevice(precision="per_layer"),
            Protocol(processes=4) if quick else Protocol(),
            folder / "mixed",
            keep=KEEP,
            how=HOW,
            between=2 if quick else 10,
            on_step=print,
        )
        others = {
            "int8_8_bits": _uniform(source, task, folder, Quantisation(per_channel=False)),
            "int8_per_channel": _uniform(source, task, folder, Quantisation()),
        }
        ratio = _largest_channel_ratio(source, folder)
    mixed, int8, fp32 = result.points[result.chosen], result.int8, result.fp32
    exact = fp32.test["accuracy"]
    metrics = {
        "latency_ratio_to_int8": mixed.latency_ms / int8.latency_ms,
        "accuracy_ratio_to_fp32": mixed.test["accuracy"] / exact,
        "latency_ratio_fp32_to_int8": fp32.latency_ms / int8.latency_ms,
        "int8_points_lost": 100 * (exact - int8.test["accuracy"]),
        "mixed_points_lost": 100 * (exact - mixed.test["accuracy"]),
        **{f"{kind}_points_lost": 100 * (exact - accuracy) for kind, accuracy in others.items()},
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


def _trained(task: Task, epochs: float, seed: int, folder: Path) -> Path:
    """The trained network as an ONNX file."""
    space = MobileCNN(input_shape=task.input_shape, classes=len(task.labels), width=0.75)
    config = space.config(space.named_genotype("mobilenet_v2"))
    with seeded(seed):
        module = space.build(config)
    with torch_threads(1):
        task.train(module, epochs, seed=seed, progress=lambda spent, found: print(f"epoch {spent:g}: {found:.3f}"))
    exported = export_deployable(space.deployable(config), folder, modules={"main": module})
    path = exported.graphs["main"].onnx_path
    assert path is not None
    return path


def _uniform(source: Path, task: Task, folder: Path, how: Quantisation) -> float:
    """Test accuracy of uniform int8 in another granularity, for comparison."""
    examples = task.examples(128)
    assert examples is not None
    path = Quantiser(source, [{"input": examples}], how).write(folder / "uniform.onnx")
    return task.score(path, "test")["accuracy"]


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


def _draw(metrics: Mapping[str, float], path: Path) -> None:
    """Test accuracy lost against latency; each line joins the front that validation chose."""
    from gnomon.reports import figure as style

    with style.drawing() as (figure, axes):
        for number, seed in enumerate(SEEDS):
            points = _front(metrics, f"seed{seed}")
            exact, color = points[-1]["test_accuracy"], f"C{number}"
            places = [(point["latency_ms"], 100 * (exact - point["test_accuracy"])) for point in points]
            losses = np.array([[-point["validation_accuracy"], point["latency_ms"]] for point in points])
            front = sorted(place for place, on in zip(places, non_dominated(losses), strict=True) if on)
            axes.plot(*zip(*front, strict=True), linewidth=1.2, color=color, zorder=1)
            axes.scatter(*zip(*places, strict=True), s=28, color=color, zorder=2, label=f"seed {seed}")
            counts = [point["fp32_layers"] for point in points]
            chosen = counts.index(metrics[f"seed{seed}.mixed.fp32_layers"])
            axes.scatter(*places[chosen], s=110, facecolors="none", edgecolors="black", zorder=3)
            axes.annotate("int8", places[0], (8, -4), textcoords="offset points")
        axes.annotate("fp32", places[-1], (-12, 9), textcoords="offset points")
        axes.invert_yaxis()
        axes.set_xlabel("latency (ms)")
        axes.set_ylabel("points of test accuracy lost")
        axes.legend(title="circled: chosen", frameon=False, loc="lower right")
        style.save(figure, path)


def _front(metrics: Mapping[str, float], seed: str) -> list[dict[str, float]]:
    """The measured points of one network, from int8 to fp32."""
    prefix = f"{seed}.front."
    points: dict[int, dict[str, float]] = {}
    for name, value in metrics.items():
        if name.startswith(prefix):
            count, _, figure = name.removeprefix(prefix).partition(".")
            points.setdefault(int(count), {})[figure] = value
    return [points[count] for count in sorted(points)]


if __name__ == "__main__":
    main("mixed_precision", run, seeds=SEEDS)
