"""Quantises one ONNX file with NNCF: a process of its own, started by the OpenVINO device.

``python -m gnomon.devices.openvino_int8 MODEL CALIBRATION ANSWERS TARGET TOLERANCE``

Two questions are kept apart. Is this the right model: OpenVINO's fp32 answers are compared with those
expected (``ANSWERS``) before anything is quantised. Does the runtime compute the quantised model: its
int8 kernels are to answer like the same quantised model in floating point, whose answers replace those
in ``ANSWERS``. How much quality eight bits cost is neither, and is measured on the task: a network of
random weights may lose all of its signal, and has a latency nevertheless.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .answers import Array, random_input, read_answers, relative_error
from .jobs import TensorJob
from .openvino import compile_properties


def main() -> int:
    """Exit code 0 if the IR and its answers were written; else the last line printed is the reason."""
    model, calibration, answers, target = (Path(argument) for argument in sys.argv[1:5])
    try:
        quantise(model, calibration, answers, target, float(sys.argv[5]))
    except Exception as error:  # whatever OpenVINO or NNCF raise
        print(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        return 1
    return 0


def quantise(path: Path, calibration: Path, answers: Path, target: Path, tolerance: float) -> None:
    """Writes the quantised IR to ``target`` and its answers in floating point to ``answers``.

    Raises:
        ValueError: If OpenVINO's fp32 answers are not the expected ones.
    """
    import openvino

    with np.load(calibration, allow_pickle=False) as file:
        stacked = dict(file)
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({name: list(array.shape[1:]) for name, array in stacked.items()})
    expected = read_answers(answers)
    inputs = {name: random_input(TensorJob(name, a.shape[1:], a.dtype.name)) for name, a in stacked.items()}
    _check(_answers(core, model, inputs, list(expected)), expected, tolerance)
    nncf = _nncf()
    n = len(next(iter(stacked.values()), ()))
    quantised = nncf.quantize(model, nncf.Dataset(list(_samples(stacked, n))), subset_size=max(n, 1))
    openvino.save_model(quantised, target, compress_to_fp16=False)
    simulated = _answers(core, core.read_model(target), inputs, list(expected), {"LP_TRANSFORMS_MODE": "NO"})
    np.savez(answers, **simulated)  # type: ignore[arg-type]


def _nncf() -> Any:
    """NNCF without what it need not do: import torch where that is installed, which takes most of its start, and
    report its use to a server, which it does unless told otherwise (and so tells its own tests)."""
    os.environ["NNCF_CI"] = "1"
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # stands for "not to be found"
    import nncf

    nncf.set_log_level(logging.ERROR)
    return nncf


def _samples(stacked: Mapping[str, Array], n: int) -> Iterator[dict[str, Array]]:
    for index in range(n):
        yield {name: array[index] for name, array in stacked.items()}


def _answers(
    core: Any, model: Any, inputs: Mapping[str, Array], outputs: list[str], extra: Mapping[str, str] | None = None
) -> dict[str, Array]:
    compiled = core.compile_model(model, "CPU", {**compile_properties(1, "fp32", "accuracy"), **(extra or {})})
    results = compiled(dict(inputs))
    return {name: np.array(results[compiled.output(name)]) for name in outputs}


def _check(found: Mapping[str, Array], expected: Mapping[str, Array], tolerance: float) -> None:
    for name, array in found.items():
        error = relative_error(array, expected[name])
        if not error <= tolerance:
            raise ValueError(
                f"before quantisation, output {name!r} differs from the model's by {error:.2g} of its size"
            )


if __name__ == "__main__":
    sys.exit(main())
