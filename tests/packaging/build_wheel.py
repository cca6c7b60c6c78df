"""Builds the wheel from a clean copy of the sources: ``python build_wheel.py FOLDER``.

setuptools keeps ``build/lib`` between builds, and files deleted since stay in the wheel; a copy cannot.
Needs no network: the build backend of the ``dev`` extra is used.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = ("__pycache__", "*.egg-info", "build", "dist", "runs", "outputs", "multirun")


def build_wheel(folder: Path) -> Path:
    """Builds the wheel of this checkout into ``folder``.

    Returns:
        The path of the wheel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        sources = Path(temporary, "gnomon-sources")
        shutil.copytree(ROOT, sources, ignore=shutil.ignore_patterns(".*", *LEFT_OUT))
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*command, "--wheel-dir", str(folder), str(sources)], check=True)
    return max(folder.glob("gnomon_nas-*.whl"), key=lambda wheel: wheel.stat().st_mtime)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(build_wheel(Path(sys.argv[1])))
