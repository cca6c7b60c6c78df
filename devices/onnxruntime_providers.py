"""ONNX Runtime's execution providers, and whether the one that was asked for really ran.

A session lists every provider it may use; nodes that the first cannot take run on the next without a word. What
ran where is only in the profile of a run.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import DeviceError, MeasurementError

ProviderOptions: TypeAlias = Mapping[str, Any]

CPU = "CPUExecutionProvider"
PROVIDERS = {
    "cpu": (CPU,),
    "cuda": ("CUDAExecutionProvider", CPU),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", CPU),
    "coreml": ("CoreMLExecutionProvider", CPU),
    "qnn": ("QNNExecutionProvider", CPU),
    "xnnpack": ("XnnpackExecutionProvider", CPU),
}
"""Names by option; the first of each is the one asked for, the rest take what it cannot."""
NVIDIA = ("cuda", "tensorrt")


def provider_list(
    provider: str, options: ProviderOptions, threads: int, available: list[str]
) -> list[tuple[str, dict[str, str]]]:
    """What a session is given as ``providers``.

    Args:
        provider: A key of :data:`PROVIDERS`.
        options: Of that provider, as ONNX Runtime documents them.
        threads: Of one inference; XNNPACK has a pool of its own.
        available: What this build of ONNX Runtime has.

    Raises:
        DeviceError: If it does not have ``provider``.
    """
    asked, *rest = PROVIDERS[provider]
    if asked not in available:
        raise DeviceError(
            "this build of ONNX Runtime does not have it",
            field="device.provider",
            value=provider,
            allowed=[name for name, (first, *_) in PROVIDERS.items() if first in available],
            hint="Accelerators have packages of their own, for example onnxruntime-gpu or onnxruntime-qnn.",
        )
    own = {"intra_op_num_threads": threads} if provider == "xnnpack" else {}
    texts = {name: str(value) for name, value in {**own, **options}.items()}
    return [(asked, texts), *((name, {}) for name in rest if name in available)]


def nodes_by_provider(profile: str | Path) -> Counter[str]:
    """How many nodes ran on each provider, from the profile that ``InferenceSession.end_profiling`` names."""
    events = json.loads(Path(profile).read_text(encoding="utf-8"))
    ran = {
        (event["name"], event.get("args", {}).get("provider"))
        for event in events
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time")
    }
    return Counter(str(provider) for _, provider in ran if provider)


def provider_share(provider: str, nodes: Counter[str]) -> float:
    """Share of the nodes (after fusion) that ran on the provider asked for, 0 to 1.

    Raises:
        MeasurementError: If none did: the latency would be another device's.
    """
    asked = PROVIDERS[provider][0]
    if nodes[asked] == 0:
        raise MeasurementError(
            f"no node ran on {asked}: all fell back to {', '.join(sorted(nodes)) or 'nothing'}",
            field="device.provider",
            value=provider,
        )
    return nodes[asked] / nodes.total()


def gpu_name(options: ProviderOptions) -> str:
    """The GPU's name, as NVIDIA's driver gives it.

    Raises:
        DeviceError: If ``nvidia-smi`` does not answer.
    """
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", f"--id={options.get('device_id', 0)}"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise DeviceError("nvidia-smi does not name a GPU here", field="device.provider", value="cuda") from error
    return answer.strip().splitlines()[0]
