"""Torch modules on an NVIDIA GPU, run eagerly, timed with CUDA events."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from ..errors import DeviceError
from ..records import Fingerprint, Statistic
from .energy import Meter, gpu_meter
from .fingerprint import machine_fingerprint, package_version
from .local import Progress
from .torch_cpu import TorchCPUDevice, TorchCPURunner


class TorchCUDARunner(TorchCPURunner):
    """As :class:`TorchCPURunner`, on ``cuda:index``. Marks are CUDA events on the current stream.

    **Never run on a GPU by its authors**: it was written from torch's documentation, on a machine
    without one.
    """

    name: ClassVar[str] = "torch_cuda"

    def __init__(self, threads: int, *, channels_last: bool = False, index: int = 0) -> None:
        super().__init__(threads, channels_last=channels_last)
        if not self._torch.cuda.is_available():
            raise DeviceError("torch finds no CUDA device", field="device", value=self.name)
        self._device = self._torch.device("cuda", index)
        self._torch.cuda.set_device(self._device)
        self._torch.backends.cudnn.benchmark = True  # its trials fall into the warm-up
        self._torch.backends.cuda.matmul.allow_tf32 = False
        self._torch.backends.cudnn.allow_tf32 = False

    def mark(self) -> Any:
        event = self._torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed_ms(self, start: Any, end: Any) -> float:
        end.synchronize()
        return float(start.elapsed_time(end))

    def meter(self) -> Meter | None:
        uuid = getattr(self._torch.cuda.get_device_properties(self._device), "uuid", None)
        return None if uuid is None else gpu_meter(f"GPU-{uuid}")

    def reset_peak_memory(self) -> None:
        self._torch.cuda.synchronize(self._device)
        self._torch.cuda.empty_cache()
        self._torch.cuda.reset_peak_memory_stats(self._device)

    def peak_memory_bytes(self) -> int | None:
        return int(self._torch.cuda.max_memory_allocated(self._device))


class TorchCUDADevice(TorchCPUDevice):
    """Torch on an NVIDIA GPU, eager, fp32 without TF32, timed with CUDA events; peak memory is the
    GPU's. Launch gaps between kernels count, as they do for whoever runs the model so.

    **Never run on a GPU by its authors**: it was written from torch's documentation, on a machine
    without one. Check its numbers against your own timing before you rely on them.

    Args:
        threads: CPU threads of the process that launches kernels.
        channels_last: Memory format NHWC.
        index: Which GPU.
        statistic, precision, on_progress: See :class:`LocalDevice`.
    """

    name: ClassVar[str] = "torch_cuda"
    runner: ClassVar[str] = f"{__name__}.TorchCUDARunner"

    def __init__(
        self,
        threads: int = 1,
        channels_last: bool = False,
        index: int = 0,
        statistic: Statistic = "median",
        precision: str = "fp32",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        super().__init__(threads, channels_last, statistic, precision, on_progress)
        self.index = index

    @classmethod
    def unavailable(cls) -> str | None:
        if find_spec("torch") is None:
            return "torch is not installed: pip install torch"
        if metadata.version("torch").endswith("+cpu"):
            return "this torch is built without CUDA: install one from https://pytorch.org"
        if not Path("/proc/driver/nvidia/version").exists() and not Path("/dev/dxg").exists():
            return "no CUDA: no NVIDIA driver on this machine"
        import torch

        return None if torch.cuda.is_available() else "torch finds no CUDA device"

    def hardware(self) -> str:
        import torch

        return str(torch.cuda.get_device_name(self.index)) if torch.cuda.is_available() else "no CUDA device"

    def options(self) -> dict[str, Any]:
        return {"channels_last": self.channels_last, "index": self.index}

    def fingerprint(self) -> Fingerprint:
        return machine_fingerprint(self.runtime(), self.threads, self.precision, accelerator=self.hardware())

    @classmethod
    def runtime(cls) -> str:
        return package_version("torch")
