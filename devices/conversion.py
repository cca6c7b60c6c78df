"""Runs a runtime's converter in a subprocess: it may crash, hang or print pages; that costs one model."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from ..errors import MeasurementError

_TAIL_BYTES = 4096


def run_converter(
    command: Sequence[str],
    *,
    limit_s: float,
    what: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    produces: Path | None = None,
) -> None:
    """Runs ``command`` in a process group of its own, which is gone when this returns.

    Args:
        command: Program and arguments; no shell is involved.
        limit_s: Seconds after which the group is killed.
        what: The converter's name in messages.
        cwd: Working folder of the process.
        env: Environment variables to set beside the inherited ones.
        produces: The file that it must have written; some converters fail with exit code 0.

    Raises:
        MeasurementError: One line: it did not start, crashed, failed, hung, or wrote nothing.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
                start_new_session=True,
            )
        except OSError as error:
            raise MeasurementError(f"{what} did not start: {error.strerror or error}") from error
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(f"{what} gave no result within {limit_s:g} s") from error
        finally:
            with contextlib.suppress(OSError):  # also what the converter may have started and left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code != 0:
            raise MeasurementError(f"{what} {_ending(code)}{_last_line(output)}")
        if produces is not None and not (produces.is_file() and produces.stat().st_size):
            raise MeasurementError(f"{what} wrote no {produces.name}{_last_line(output)}")


def self_contained(path: Path, target: Path) -> Path:
    """Writes the ONNX model at ``path`` with its weights in one file, for converters that read no external
    data or leave their traces beside what they read.

    Raises:
        MeasurementError: If it is not an ONNX model, or too large for one file.
    """
    import onnx

    try:
        onnx.save(onnx.load(path), target)
    except Exception as error:  # protobuf's error types differ between its implementations
        reason = " ".join(str(error).split())[:200]
        raise MeasurementError(f"cannot be read as one ONNX file: {reason}", field="onnx_path") from error
    return target


def _ending(code: int) -> str:
    with contextlib.suppress(ValueError):
        if code < 0:
            return f"crashed with {signal.Signals(-code).name}"
    return f"failed with exit code {code}"


def _last_line(output: IO[bytes], width: int = 200) -> str:
    """The last line that was printed, for the end of a message; empty if there is none."""
    size = output.seek(0, os.SEEK_END)
    output.seek(max(size - _TAIL_BYTES, 0))
    lines = output.read().decode(errors="replace").splitlines()
    last = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
    return f": {last[:width]}" if last else ""
