"""Files of exported models, run through ONNX Runtime on this CPU to be scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..errors import TaskError

Arrays = dict[str, npt.NDArray[Any]]


def opened(path: Path, threads: int = 1) -> Any:
    """A session on the CPU.

    Raises:
        TaskError: If the file is damaged.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime's own exceptions have no common base but Exception.
        raise TaskError(f"cannot load {path}: {_first_line(error)}") from error


def run(session: Any, given: Arrays) -> list[npt.NDArray[Any]]:
    """All outputs, in order. What the graph does not take is left out.

    Raises:
        TaskError: If it cannot run on these inputs.
    """
    names = {node.name for node in session.get_inputs()}
    try:
        results: list[npt.NDArray[Any]] = session.run(None, {name: given[name] for name in names})
    except Exception as error:
        raise TaskError(
            f"the exported model cannot run: {_first_line(error)}",
            field="inputs",
            value={name: array.shape for name, array in given.items()},
            hint="Tokens must be within the vocabulary, and sentences no longer than the model's longest.",
        ) from error
    return results


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
