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


def build_wheel(folder: Path, sources: Path = ROOT) -> Path:
    """Builds a wheel into ``folder``.

    Args:
        folder: Made if missing.
        sources: A checkout, or the archive of a source distribution.

    Returns:
        The path of the wheel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        if sources.is_dir():
            sources = copy_sources(sources, Path(temporary, "sources"))
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*command, "--wheel-dir", str(folder), str(sources)], check=True)
    return max(folder.glob("gnomon_nas-*.whl"), key=lambda wheel: wheel.stat().st_mtime)


def copy_sources(checkout: Path, target: Path) -> Path:
    """Copies a checkout without what builds, runs and tools leave in it."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        if Path(folder) != checkout:
            return {name for name in names if name == "__pycache__"}
        hidden = {name for name in names if name.startswith(".") and name != ".ci"}
        return hidden | shutil.ignore_patterns(*LEFT_OUT)(folder, names)

    shutil.copytree(checkout, target, ignore=left_out)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(build_wheel(Path(sys.argv[1])))
