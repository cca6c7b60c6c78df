"""The state of this machine, as far as it bears on a latency."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from ..records import Fingerprint

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_BOARD = Path("/proc/device-tree/model")
_CPUINFO = Path("/proc/cpuinfo")


def machine_fingerprint(
    runtime: str,
    threads: int,
    precision: str,
    *,
    accelerator: str | None = None,
    pinned: bool = False,
    realtime: bool = False,
) -> Fingerprint:
    """The machine now; ``pinned`` and ``realtime`` as the measuring process really obtained them."""
    return Fingerprint(
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        runtime=runtime,
        threads=threads,
        precision=precision,
        governor=_read(_GOVERNOR),
        load_1min=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        accelerator=accelerator,
        pinned=pinned,
        realtime=realtime,
        virtual=_virtual(),
    )


@cache
def cpu_model() -> str:
    """Marketing name of the processor, or of the board where the processor has none (ARM)."""
    for line in (_read(_CPUINFO) or "").splitlines():
        if line.lower().startswith(("model name", "hardware")):
            return " ".join(line.partition(":")[2].split())
    board = _read(_BOARD)
    if board:
        return board.strip("\0 \n")
    return platform.processor() or platform.machine()


def package_version(package: str) -> str:
    """``package version`` without importing it; ``package`` alone if it is not installed."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return package


@cache
def _memory_bytes() -> int:
    try:  # psutil is not asked of a remote host
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        import psutil

        return int(psutil.virtual_memory().total)


@cache
def _virtual() -> bool | None:
    """Whether a hypervisor runs below; None where that cannot be told (x86 Linux can)."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "i686", "AMD64"):
        return None
    flags = next((line for line in (_read(_CPUINFO) or "").splitlines() if line.startswith("flags")), "")
    return "hypervisor" in flags.split() if flags else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None
