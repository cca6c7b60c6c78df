"""NAS-Bench-Macro (Su et al., 2103.11922; github.com/xiusu/NAS-Bench-Macro): 6,561 networks on CIFAR-10."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..search_spaces import GENE_DTYPE
from ..search_spaces.nasbench_macro import NASBenchMacro
from .data_root import data_path
from .table import ArchitectureTable

FILE = "nasbench_macro/nas-bench-macro_cifar10.json"
DIGITS = ("identity", "mb3_k3", "mb6_k5")
"""What the digits of an upstream key mean, one digit a layer."""


def nasbench_macro(path: str | Path | None = None) -> ArchitectureTable:
    """Columns ``accuracy`` (mean test accuracy of three trainings, a fraction, 0 to 1),
    ``accuracy_std`` (between them), ``params`` and ``flops`` as upstream gives them.

    Args:
        path: The JSON file; default ``nasbench_macro/nas-bench-macro_cifar10.json`` under
            ``$GNOMON_DATA``.

    Raises:
        DataError: If the file is missing or damaged.
    """
    file = data_path(FILE, path)
    space = NASBenchMacro()
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        genes = np.array([[int(digit) for digit in key] for key in entries], dtype=np.int64)
        trainings = np.array([entry["test_acc"] for entry in entries.values()], dtype=np.float64) / 100.0
        params, flops = (
            np.array([entry[name] for entry in entries.values()], dtype=np.float64) for name in ("params", "flops")
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"cannot read {file} as NAS-Bench-Macro: {type(error).__name__}: {error}") from error
    if genes.ndim != 2 or genes.shape[1] != len(space.decisions) or genes.max() >= len(DIGITS):
        raise DataError(
            f"{file}: keys are not networks", allowed=f"{len(space.decisions)} digits, 0 to {len(DIGITS) - 1}"
        )
    digit_to_gene = np.array([[decision.choices.index(name) for name in DIGITS] for decision in space.decisions])
    genotypes = digit_to_gene[np.arange(genes.shape[1]), genes].astype(GENE_DTYPE)
    return ArchitectureTable(
        space,
        space.canonical(genotypes),
        {"accuracy": trainings.mean(axis=1), "accuracy_std": trainings.std(axis=1), "params": params, "flops": flops},
        f"NAS-Bench-Macro (xiusu/NAS-Bench-Macro, Apache-2.0): {file}",
        {"accuracy": "mean test accuracy of three trainings on CIFAR-10, percent / 100"},
    )
