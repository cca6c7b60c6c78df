"""A runner that asks for an accelerator that ONNX Runtime then leaves idle."""

from __future__ import annotations

from gnomon.devices.onnxruntime import OnnxRuntimeRunner


class FallingBackRunner(OnnxRuntimeRunner):
    """Its sessions run on the CPU, whatever it was asked for."""

    def __init__(self, threads: int, **options: object) -> None:
        super().__init__(threads)
        self._provider = "cuda"
