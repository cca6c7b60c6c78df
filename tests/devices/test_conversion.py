"""Converters run in a subprocess: whatever they do costs one model, in one line."""

from __future__ import annotations

import os
import sys
import time

import pytest

from gnomon.devices.conversion import run_converter
from gnomon.errors import MeasurementError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_converter_that_works_says_nothing(tmp_path):
    file = tmp_path / "model.bin"
    run_converter(python(f"open({str(file)!r}, 'w').write('x')"), limit_s=20, what="tool", produces=file)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; print('pages\\nof\\n  reasons  ', file=sys.stderr); sys.exit(3)", "exit code 3: reasons"),
        ("import os; os.kill(os.getpid(), 11)", "tool crashed with SIGSEGV"),
        ("print('done')", "tool wrote no model.bin: done"),
        ("import sys; sys.stdout.buffer.write(bytes(range(256)) * 1000); sys.exit(1)", "exit code 1"),
    ],
)
def test_a_converter_that_fails_is_one_line(tmp_path, code, message):
    with pytest.raises(MeasurementError, match=message) as error:
        run_converter(python(code), limit_s=20, what="tool", produces=tmp_path / "model.bin")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_missing_converter_is_named():
    with pytest.raises(MeasurementError, match="tool did not start: No such file"):
        run_converter(["/no/such/tool"], limit_s=20, what="tool")


def test_a_converter_that_hangs_is_killed_with_its_children(tmp_path):
    pid = tmp_path / "pid"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pid)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    start = time.monotonic()
    with pytest.raises(MeasurementError, match="within 2 s"):
        run_converter(python(code), limit_s=2, what="tool")
    assert time.monotonic() - start < 20
    assert not _alive(int(pid.read_text()))


def _alive(pid: int) -> bool:
    """Whether the process still runs; a killed one may wait a moment for its parent to notice."""
    for _ in range(50):
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return False
        except (ProcessLookupError, FileNotFoundError):
            return False
        time.sleep(0.05)
    return True
