"""Scores of a predictor over devices, sample sizes and seeds: kept, averaged, printed, drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ...predictors import PredictorScores
    from ...reports.predictor_plots import Scatter

SCHEMA = "gnomon.predictor_evaluation/1"
COUNTS = ("n_architectures", "n_measurements")
SHOWN = {
    "within_10_percent": "within\n±10 %",
    "mape": "mean\nerror",
    "coverage_90": "in 90 %\ninterval",
    "interval_score": "interval\nscore",
}
PERCENT = ("within_10_percent", "mape", "coverage_90")


@dataclass
class Scoreboard:
    """Scores by setting, number of measurements and query, one a seed.

    Args:
        title: What was scored, in a line.
        about: The same as JSON.
    """

    title: str
    about: Mapping[str, Any]
    scores: dict[tuple[str, int, str], list[PredictorScores]] = field(default_factory=dict)

    def add(self, setting: str, samples: int, query: str, scores: PredictorScores) -> None:
        """Of one seed."""
        self.scores.setdefault((setting, samples, query), []).append(scores)

    @property
    def settings(self) -> list[str]:
        return list(dict.fromkeys(setting for setting, _, _ in self.scores))

    @property
    def samples(self) -> list[int]:
        return sorted({samples for _, samples, _ in self.scores})

    @property
    def queries(self) -> list[str]:
        return list(dict.fromkeys(query for _, _, query in self.scores))

    def mean(self, samples: int, query: str, setting: str | None = None) -> dict[str, float]:
        """Mean over seeds, and over settings if none is named."""
        chosen = self.settings if setting is None else [setting]
        parts = [_mean(self.scores[name, samples, query]) for name in chosen]
        return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}

    def seed_spread(self, samples: int, query: str) -> float:
        """Standard deviation over seeds of the mean Spearman over settings; 0 for one seed."""
        by_setting = [[s.spearman for s in self.scores[name, samples, query]] for name in self.settings]
        by_seed = np.mean(by_setting, axis=0)
        return float(by_seed.std(ddof=1)) if len(by_seed) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON: every seed's scores, and the means."""
        return {
            **self.about,
            "settings": [
                {
                    "setting": setting,
                    "samples": samples,
                    "query": query,
                    "mean": _mean(scores),
                    "seeds": [s.to_dict() for s in scores],
                }
                for (setting, samples, query), scores in self.scores.items()
            ],
            "mean": [
                {"samples": n, "query": q, "spearman_std_over_seeds": self.seed_spread(n, q), **self.mean(n, q)}
                for n in self.samples
                for q in self.queries
            ],
        }

    def print(self) -> None:
        """A table: a row a setting and number of measurements, then the means."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        table.add_column("setting", overflow="fold")
        several = len(self.queries) > 1
        ranks = [f"Spearman\n{query}" if several else "Spearman" for query in self.queries]
        for column in ("n", *ranks, *SHOWN.values()):
            table.add_column(column, justify="right")
        for setting in self.settings:
            for n in self.samples:
                last = n == self.samples[-1] and (len(self.samples) > 1 or setting == self.settings[-1])
                table.add_row(setting, str(n), *self._cells(n, setting), end_section=last)
        if len(self.settings) > 1:
            for n in self.samples:
                table.add_row("mean", str(n), *self._cells(n, None), style="bold")
        print(self.title)
        Console().print(table)
        of = f"; all but Spearman of query {self.queries[0]}" if several else ""
        print(f"n: measurements on the setting{of}.")
        n, query = self.samples[-1], self.queries[0]
        seeds = len(next(iter(self.scores.values())))
        if seeds > 1:
            print(
                f"Mean of {seeds} seeds; over seeds, mean Spearman {query} at {n} varies by "
                f"{self.seed_spread(n, query):.3f} (standard deviation)."
            )

    def _cells(self, samples: int, setting: str | None) -> list[str]:
        ranks = [f"{self.mean(samples, query, setting)['spearman']:.3f}" for query in self.queries]
        first = self.mean(samples, self.queries[0], setting)
        return ranks + [f"{100 * first[k]:.1f} %" if k in PERCENT else f"{first[k]:.3f}" for k in SHOWN]

    def draw(self, scatters: Sequence[Scatter], drawn: str, to: Path) -> list[Path]:
        """Writes the plots; accuracy against measurements only where there are several numbers.

        Args:
            scatters: One a setting.
            drawn: Which of the models they are of.
            to: Folder.
        """
        from ...reports.predictor_plots import Curve, draw_curves, draw_scatters

        paths = [to / "predicted_measured.png"]
        draw_scatters(scatters, paths[0], title=f"{self.title}: {drawn}")
        if len(self.samples) > 1:
            paths.append(to / "accuracy_samples.png")
            query = self.queries[0]
            figures: dict[str, Callable[[PredictorScores], float]] = {
                "rank correlation (Spearman)": lambda s: s.spearman,
                "share within ±10 %": lambda s: s.within_10_percent,
            }
            panels = {
                name: [
                    Curve(
                        setting,
                        tuple(self.samples),
                        np.array([[value(s) for s in self.scores[setting, n, query]] for n in self.samples]),
                    )
                    for setting in self.settings
                ]
                for name, value in figures.items()
            }
            draw_curves(panels, paths[1], title=self.title)
        return paths


def _mean(scores: Sequence[PredictorScores]) -> dict[str, float]:
    names = [f.name for f in fields(scores[0]) if f.name not in COUNTS]
    return {name: float(np.mean([getattr(s, name) for s in scores])) for name in names}
