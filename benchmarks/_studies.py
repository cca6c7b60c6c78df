"""Searches that benchmarks start, and what they find measured together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from benchmarks._common import ROOT
from gnomon.devices import Device, Protocol
from gnomon.records import Measurement, StudySummary
from gnomon.search.instantiate import instantiate
from gnomon.search.summary import SUMMARY_FILE, read_summary
from gnomon.search_spaces import Deployable

STUDIES = ROOT / "runs" / "benchmarks" / "studies"


def run_search(folder: Path, studies: Path, words: Sequence[str]) -> StudySummary:
    """``gnomon search`` in a process of its own; the study goes on where it was.

    Args:
        folder: Of the study.
        studies: Where studies share their measurements.
        words: Of the command.
    """
    store = studies.absolute() / "measurements.sqlite"
    places = (f"study.folder={folder.absolute()}", f"study.name={folder.name}", f"study.store={store}")
    command = [sys.executable, "-m", "gnomon.cli", "search", *words, *places]
    subprocess.run(command, check=True, stdout=sys.stderr)
    summary = read_summary(folder / SUMMARY_FILE)
    if not summary.finished:
        raise SystemExit(f"{folder}: the study is not finished")
    return summary


def load_protocol(name: str) -> Protocol:
    """An option of ``protocol=``."""
    option = OmegaConf.load(ROOT / "conf" / "protocol" / f"{name}.yaml")
    assert isinstance(option, DictConfig)
    protocol: Protocol = instantiate(option, "protocol")
    return protocol


def measure_together(
    device: Device, deployables: Mapping[str, Deployable], protocol: Protocol
) -> dict[str, Measurement]:
    """All of them in one interleaved session, by name."""
    found = dict(zip(deployables, device.measure(list(deployables.values()), protocol, seed=1), strict=True))
    for name, measurement in found.items():
        if measurement.verdict == "failed":
            raise SystemExit(f"cannot measure {name}: {measurement.error}")
    return found
