"""Converts torch programs to LiteRT models: a script for the converter's own Python environment.

It imports nothing of this package. Requests come as lines of JSON on standard input, with paths:
``program`` (.pt2), ``answers`` (npz: expected outputs by name), ``outputs`` (their names in order),
``target``, ``tolerance`` (relative error of fp32 answers), and for int8 ``samples`` and ``questions``
(npz of the inputs ``input0``, ... for calibration and for the answers, ``(N, ...)`` and ``(1, ...)``).
One line comes back for each.

Two questions are kept apart for int8. Is it the right model: the fp32 model's answers are compared with
the expected before anything is quantised. Does the runtime compute the quantised model: the answers
to compare with become those of LiteRT's reference kernels, so that XNNPACK's must agree with them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main() -> int:
    """Answers requests until standard input closes."""
    stream = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not an answer
    sys.stdout = sys.stderr
    import torch

    torch.set_num_threads(1)
    import litert_torch

    stream.write(json.dumps({"ready": getattr(litert_torch, "__version__", "")}) + "\n")
    for line in sys.stdin:
        try:
            convert(**json.loads(line))
            answer: dict[str, Any] = {"written": True}
        except Exception as error:  # whatever the converter's passes raise
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
    """Writes the LiteRT model ``target``, and for int8 the answers of its reference kernels to ``answers``."""
    import litert_torch
    import torch

    exported = torch.export.load(program)
    examples = tuple(torch.as_tensor(each) for each in exported.example_inputs[0])
    with torch.no_grad():
        litert_torch.convert(exported.module(), examples).export(target)
    if samples is None or questions is None:
        return
    expected = load(answers)
    inputs = [array[0] for array in load(questions).values()]
    found = run(target, inputs, reference=False)
    for name, array in zip(outputs, found, strict=True):
        scale = max(float(np.sqrt(np.mean(np.square(expected[name], dtype=np.float64)))), 1e-12)
        error = float(np.sqrt(np.mean(np.square(np.subtract(array, expected[name], dtype=np.float64))))) / scale
        if not error <= tolerance:
            raise ValueError(
                f"before quantisation, output {name!r} differs from the model's by {error:.2g} of its size"
            )
    quantise(target, load(samples))
    np.savez(answers, **dict(zip(outputs, run(target, inputs, reference=True), strict=True)))


def quantise(path: str, samples: dict[str, Any]) -> None:
    """Replaces the model by one of int8 weights and activations; its inputs and outputs stay float."""
    from ai_edge_quantizer import qtyping, quantizer, recipe

    float_path = f"{path}.float"
    Path(path).rename(float_path)
    worker = quantizer.Quantizer(float_path, quantization_recipe=recipe.static_wi8_ai8())
    for ends in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        worker.update_quantization_recipe(
            regex=".*", operation_name=ends, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE
        )
    names = signature(float_path)
    n = len(next(iter(samples.values())))
    sets = [{name: samples[f"input{i}"][k] for i, name in enumerate(names)} for k in range(n)]
    result = worker.calibrate({"serving_default": sets}, num_threads=1)
    worker.quantize(result, enable_progress_report=False).export_model(path, overwrite=True)


def signature(path: str) -> list[str]:
    """Names of the inputs, ``args_0`` first."""
    from ai_edge_litert.interpreter import Interpreter

    names = Interpreter(path).get_signature_list()["serving_default"]["inputs"]
    return sorted(names, key=lambda name: int(name.rpartition("_")[2]))


def run(path: str, inputs: list[Any], *, reference: bool) -> list[Any]:
    """Outputs in order, by the reference kernels or those that are measured."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    runner = Interpreter(path, num_threads=1, experimental_op_resolver_type=kind).get_signature_runner()
    names = signature(path)
    found = runner(**dict(zip(names, inputs, strict=True)))
    return [found[name] for name in sorted(found, key=lambda name: int(name.rpartition("_")[2]))]


def load(path: str) -> dict[str, Any]:
    """Arrays by name."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


if __name__ == "__main__":
    sys.exit(main())
