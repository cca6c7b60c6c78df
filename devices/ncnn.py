"""ncnn on the CPU; ONNX files are converted by pnnx."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from ..errors import DeviceError, MeasurementError
from ..records import Statistic
from ..search_spaces import Graph
from .answers import Array, read_answers
from .conversion import run_converter, self_contained
from .fingerprint import package_version
from .jobs import GraphJob, ModelJob
from .local import Progress
from .onnx_device import OnnxDevice
from .runner import GraphFunction, Runner

CONVERT_LIMIT_S = 120.0
PNNX_DTYPES = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64"}
"""numpy's names of what pnnx takes as inputs, in its own."""
FORMATS = {
    "fp32": {},
    "fp16": {"use_fp16_packed": True, "use_fp16_storage": True, "use_fp16_arithmetic": True},
    "bf16": {"use_bf16_packed": True, "use_bf16_storage": True},
}
"""Options that are on for each precision; all of them are off for the others (ncnn's default is fp16)."""


class NcnnRunner(Runner):
    """Runs models that pnnx wrote through ncnn."""

    name: ClassVar[str] = "ncnn"

    def __init__(self, threads: int, *, precision: str = "fp32", winograd: bool = True, packing: bool = True) -> None:
        super().__init__(threads)
        import ncnn

        self._runtime = ncnn
        self._options = {key: False for keys in FORMATS.values() for key in keys}
        self._options.update(FORMATS[precision])
        self._options.update(use_winograd_convolution=winograd, use_packing_layout=packing, use_vulkan_compute=False)

    def net(self, graph: GraphJob) -> Any:
        """The loaded network.

        Raises:
            DeviceError: If this build of ncnn lacks an option.
            MeasurementError: If ncnn cannot load it: pnnx writes operators that ncnn lacks without a word.
        """
        net = self._runtime.Net()
        net.opt.num_threads = self.threads
        for key, value in self._options.items():
            if not hasattr(net.opt, key):
                raise DeviceError("not an option of this version of ncnn", field=key, value=value)
            setattr(net.opt, key, value)
        weights = str(Path(cast(str, graph.path)).with_suffix(".bin"))
        if net.load_param(graph.path) != 0 or net.load_model(weights) != 0:
            raise MeasurementError("ncnn cannot load the model, mostly for an operator that it lacks")
        return net

    def load(self, graph: GraphJob, model: ModelJob) -> GraphFunction:
        net = self.net(graph)
        axes = batch_axes(Path(cast(str, graph.path)).with_suffix(".py"))
        inputs = [(f"in{i}", tensor.name, axes[f"in{i}"]) for i, tensor in enumerate(graph.inputs) if f"in{i}" in axes]
        shapes = {} if graph.answers is None else {n: a.shape for n, a in read_answers(graph.answers).items()}
        outputs = [(f"out{i}", axes[f"out{i}"], shapes.get(name)) for i, name in enumerate(graph.outputs)]
        mat = self._runtime.Mat

        def run(arrays: Mapping[str, Array]) -> list[Array]:
            extractor = net.create_extractor()
            for blob, name, axis in inputs:
                array = arrays[name]
                if array.dtype == np.int64:
                    array = array.astype(np.int32)  # ncnn's integers; it would take the halves for two
                # A copy: ncnn wants each channel's start aligned, and keeps no reference to the array.
                extractor.input(blob, mat(array, batch_index=axis).clone())
            results = []
            for blob, axis, shape in outputs:
                code, result = extractor.extract(blob)
                if code != 0:
                    raise MeasurementError(f"ncnn's extract returned {code}")
                array = np.array(result.numpy(batch_index=axis))
                # ncnn has no axes of length 1 at the front.
                results.append(array.reshape(shape) if shape is not None and array.size == np.prod(shape) else array)
            return results

        return run


def batch_axes(script: Path) -> dict[str, int]:
    """Which axis pnnx takes for the batch, by blob (233: none), as its own example script has it."""
    text = script.read_text()
    axes = re.findall(r'ex\.input\("(in\d+)".*?batch_index=(\d+)', text)
    axes += re.findall(r"(out\d+)\.numpy\(batch_index=(\d+)\)", text)
    return {blob: int(axis) for blob, axis in axes}


class NcnnDevice(OnnxDevice):
    """ncnn on this machine's CPU. Takes ONNX files, which pnnx converts.

    Args:
        threads: Threads of one inference.
        winograd: Winograd convolutions (ncnn's default).
        packing: Packed memory layouts (ncnn's default).
        precision: ``fp32``, ``fp16`` or ``bf16`` (storage and arithmetic, emulated where the CPU lacks them).
        statistic, on_progress: See :class:`~gnomon.devices.local.LocalDevice`.
    """

    name: ClassVar[str] = "ncnn"
    runner: ClassVar[str] = f"{__name__}.NcnnRunner"
    precisions: ClassVar[tuple[str, ...]] = tuple(FORMATS)

    def __init__(
        self,
        threads: int = 1,
        winograd: bool = True,
        packing: bool = True,
        statistic: Statistic = "median",
        precision: str = "fp32",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        super().__init__(threads, statistic, precision, on_progress)
        self.winograd = winograd
        self.packing = packing

    @classmethod
    def unavailable(cls) -> str | None:
        missing = [name for name in ("ncnn", "pnnx") if find_spec(name) is None]
        return f"{' and '.join(missing)} not installed: pip install 'gnomon-nas[ncnn]'" if missing else None

    @classmethod
    def runtime(cls) -> str:
        return package_version("ncnn")

    def options(self) -> Mapping[str, Any]:
        return {"precision": self.precision, "winograd": self.winograd, "packing": self.packing}

    def convert(self, graph: Graph, folder: Path) -> Path:
        """``model.ncnn.param``; beside it the weights (``.bin``) and pnnx's example script (``.py``)."""
        target = folder / "model.ncnn.param"
        side = {name: folder / f"pnnx.{end}" for name, end in _SIDE_FILES.items()}
        outputs = {
            "ncnnparam": target,
            "ncnnbin": target.with_suffix(".bin"),
            "ncnnpy": target.with_suffix(".py"),
            **side,
        }
        shapes = _shapes(graph)
        source = self_contained(cast(Path, graph.onnx_path), folder / "source.onnx")
        command = [str(_pnnx()), str(source), f"inputshape={shapes}", "fp16=0"]
        command += [f"{name}={path}" for name, path in outputs.items()]
        run_converter(command, limit_s=CONVERT_LIMIT_S, what="pnnx", cwd=folder, produces=target)
        return target


_SIDE_FILES = {"pnnxparam": "param", "pnnxbin": "bin", "pnnxpy": "py", "pnnxonnx": "onnx"}
"""What pnnx writes besides, wanted or not."""


def _pnnx() -> Path:
    """pnnx's program; its Python package is only a wrapper around it."""
    spec = find_spec("pnnx")
    folder = Path(cast(str, cast(Any, spec).origin)).parent
    return next((path for path in (folder / "pnnx", folder / "pnnx.exe") if path.is_file()), folder / "pnnx")


def _shapes(graph: Graph) -> str:
    """Shapes and dtypes of the inputs as pnnx reads them, for example ``[1,3,32,32]f32``."""
    for spec in graph.inputs:
        if spec.dtype not in PNNX_DTYPES:
            raise MeasurementError(
                f"pnnx does not take the dtype of input {spec.name!r}",
                field="dtype",
                value=spec.dtype,
                allowed=PNNX_DTYPES,
            )
    return ",".join(f"[{','.join(map(str, spec.shape))}]{PNNX_DTYPES[spec.dtype]}" for spec in graph.inputs)
