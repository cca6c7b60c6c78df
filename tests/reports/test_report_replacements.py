"""What a report says of replacements that learnt by themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gnomon.records import SharedTraining, StudySummary
from gnomon.reports import write_report

BLOCKWISE = SharedTraining(
    "blockwise",
    2,
    20,
    20,
    3.5,
    "likelihood_per_byte",
    curves={"parent": (0.4, 0.4), "all_deltanet": (0.2, 0.3)},
    losses=(0.5, 0.25),
    errors={"mixer1/deltanet": (0.6, 0.125), "mixer1/identity": (1.0, 1.0), "mixer2/deltanet": (0.4, 0.375)},
)


def test_what_each_replacement_failed_to_learn(
    rich: StudySummary, tmp_path: Path, write: Callable[[Path, StudySummary], Path]
) -> None:
    page = write_report(write(tmp_path, replace(rich, shared_training=BLOCKWISE))).read_text(encoding="utf-8")
    rows = [re.findall(r"<t[dh]>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)]
    assert ["place", "deltanet", "identity"] in rows
    assert ["mixer1", "0.125", "1"] in rows
    assert ["mixer2", "0.375", ""] in rows
    assert "each of which learnt by itself" in page
    assert "trained from scratch" not in page
    assert "How often each choice was trained" not in page
    assert (tmp_path / "plots" / "shared_training.png").is_file()


def test_a_record_without_errors_can_be_read() -> None:
    """Of studies before there were any."""
    plain = replace(BLOCKWISE, errors={}).to_dict()
    del plain["errors"]
    assert SharedTraining.from_dict(plain).errors == {}
