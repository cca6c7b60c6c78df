"""A pool of devices as HELP's tasks: scaled targets, embeddings, episodes.

Shapes: S settings, N architectures, R references, T tasks of an episode.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...errors import PredictorError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

TARGET_LOW, TARGET_HIGH = 0.05, 0.95
"""The least and the greatest latency that scaling has seen become these scores."""


@dataclass(frozen=True)
class MetaTasks:
    """Settings to learn from, or to validate on.

    Args:
        targets: Scaled latencies ``(S, N)``.
        rows: Of each setting, which architectures may serve as support or query.
        embeddings: ``(S, R)``.
    """

    targets: FloatArray
    rows: tuple[IntArray, ...]
    embeddings: FloatArray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def smallest(self) -> int:
        """Rows of the setting that has fewest."""
        return min(len(rows) for rows in self.rows)


@dataclass(frozen=True)
class Episode:
    """Which settings, and which of their rows, one step of meta-training sees.

    Args:
        settings: ``(T,)``.
        support: Rows ``(T, K)`` for the inner steps.
        query: Other rows ``(T, Q)`` for the outer loss.
    """

    settings: IntArray
    support: IntArray
    query: IntArray


def meta_tasks(latencies_ms: FloatArray, references: IntArray, trim: float) -> MetaTasks:
    """Tasks of settings from their latencies.

    Args:
        latencies_ms: ``(N, S)``, NaN where not measured.
        references: Rows ``(R,)``, measured on every setting.
        trim: Share of each setting's fastest, and of its slowest, architectures to leave out.
    """
    targets, rows = [], []
    for latencies in latencies_ms.T:
        known = np.flatnonzero(~np.isnan(latencies))
        low, high = np.quantile(latencies[known], [trim, 1 - trim])
        kept = known[(latencies[known] >= low) & (latencies[known] <= high)]
        rows.append(kept)
        targets.append(scaled(latencies, float(latencies[kept].min()), float(latencies[kept].max())))
    embeddings = np.stack([embedding(column[references]) for column in latencies_ms.T])
    return MetaTasks(np.stack(targets), tuple(rows), embeddings)


def embedding(latencies_ms: FloatArray) -> FloatArray:
    """The hardware embedding ``(R,)``: latencies of the references between their least and greatest."""
    spread = float(np.ptp(latencies_ms))
    if spread == 0.0:
        return np.full(len(latencies_ms), 0.5)
    return np.asarray((latencies_ms - latencies_ms.min()) / spread)


def scaled(latencies_ms: FloatArray, low_ms: float, high_ms: float) -> FloatArray:
    """Latencies as targets: ``low_ms`` becomes .05 and ``high_ms`` .95."""
    spread = max(high_ms - low_ms, 1e-6 * high_ms)
    return TARGET_LOW + (TARGET_HIGH - TARGET_LOW) * (latencies_ms - low_ms) / spread


def draw_episode(tasks: MetaTasks, n_tasks: int, n_support: int, n_query: int, rng: np.random.Generator) -> Episode:
    """Random settings without repetition, and random rows of each; as many as there are."""
    settings = rng.permutation(len(tasks))[:n_tasks]
    n_query = min(n_query, tasks.smallest - n_support)
    if n_query < 1:
        raise PredictorError(
            "a setting of the pool has too few latencies to learn from",
            field="pool",
            value=tasks.smallest,
            allowed=f"more than {n_support} a setting",
        )
    drawn = np.stack([rng.permutation(tasks.rows[setting])[: n_support + n_query] for setting in settings])
    return Episode(settings, drawn[:, :n_support], drawn[:, n_support:])
