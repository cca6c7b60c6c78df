"""Converts torch programs to ExecuTorch programs for XNNPACK: a script, which lives in a process of its own.

Requests come as lines of JSON on standard input, with paths: ``program`` (.pt2), ``answers`` (npz:
expected outputs by name), ``outputs`` (their names in order), ``target`` and, for int8, ``samples`` (npz of
calibration inputs ``input0``, ... each ``(N, ...)``) and ``questions`` (the same with N = 1). One line
comes back for each.

The program is a copy of the file whose answers are expected, so for int8 these become the answers of the
quantised program in torch, with quantisation simulated: XNNPACK's kernels must agree with them.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

import numpy as np


def main() -> int:
    """Answers requests until standard input closes."""
    stream = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not an answer
    sys.stdout = sys.stderr
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    import executorch.exir

    stream.write(json.dumps({"ready": executorch.exir.__name__}) + "\n")
    for line in sys.stdin:
        try:
            convert(**json.loads(line))
            answer: dict[str, Any] = {"written": True}
        except Exception as error:  # whatever the many passes raise
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        stream.write(json.dumps(answer) + "\n")
        stream.flush()
    return 0


def convert(
    program: str,
    answers: str,
    outputs: list[str],
    target: str,
    tolerance: float,
    samples: str | None = None,
    questions: str | None = None,
) -> None:
    """Writes the ``.pte`` file ``target``, and for int8 the quantised program's answers to ``answers``."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.load(program)
    if samples is not None and questions is not None:
        inputs = _tensors(questions, 0)
        _compare(exported.module()(*inputs), answers, outputs, tolerance)
        module = quantised(exported, samples)
        with torch.no_grad():
            found = module(*inputs)
            exported = torch.export.export(module, exported.example_inputs[0])
        np.savez(answers, **{name: each.numpy() for name, each in zip(outputs, _listed(found), strict=True)})
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    with open(target, "wb") as file:
        lowered.write_to_file(file)


def quantised(exported: Any, samples: str) -> Any:
    """The program with int8 activations and weights, these by channel, as XNNPACK computes them."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    with np.load(samples, allow_pickle=False) as file:
        n = len(file["input0"])
    with torch.no_grad():
        module = prepare_pt2e(exported.module(), quantizer)
        for k in range(n):
            module(*_tensors(samples, k))
        return convert_pt2e(module)


def _compare(found: Any, answers: str, outputs: list[str], tolerance: float) -> None:
    with np.load(answers, allow_pickle=False) as file:
        expected = dict(file)
    for name, tensor in zip(outputs, _listed(found), strict=True):
        scale = max(float(np.sqrt(np.mean(np.square(expected[name], dtype=np.float64)))), 1e-12)
        difference = np.subtract(tensor.detach().numpy(), expected[name], dtype=np.float64)
        error = float(np.sqrt(np.mean(np.square(difference)))) / scale
        if not error <= tolerance:
            raise ValueError(
                f"before quantisation, output {name!r} differs from the model's by {error:.2g} of its size"
            )


def _listed(found: Any) -> list[Any]:
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _tensors(path: str, index: int) -> list[Any]:
    import torch

    with np.load(path, allow_pickle=False) as file:
        return [torch.from_numpy(file[f"input{i}"][index]) for i in range(len(file.files))]


if __name__ == "__main__":
    sys.exit(main())
