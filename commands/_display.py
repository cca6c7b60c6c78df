"""Progress of a search in a terminal, and quiet lines where there is none."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..search.loop import LoopEvent

LINE_EVERY_S = 20.0


class SearchDisplay:
    """One progress bar a phase, printed to stderr so that stdout holds results only."""

    def __init__(self, evaluations: int, metric: str, preparation: int | None = None) -> None:
        self._console = Console(stderr=True)
        self._evaluations = evaluations
        self._metric = metric
        self._preparation = preparation
        self._best = float("-inf")
        self._last_line = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
        )
        self._bars: dict[str, int] = {}

    def __enter__(self) -> SearchDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:  # bars that never showed would leave an empty line above an error
            self._progress.stop()

    def phase(self, text: str) -> None:
        self._console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {text}", highlight=False)

    def references(self, done: int, total: int) -> None:
        self._update("reference latencies", done, total)

    def preparation(self, spent: float, metric: float) -> None:
        text = f"{self._metric} {metric:.4f}"
        self._update("shared training, epochs", int(spent), self._preparation, text)
        self._line(f"shared training: {spent:g} epochs, {text}")

    def on_event(self, event: LoopEvent) -> None:
        if event.quality is not None:
            self._best = max(self._best, event.quality)
        best = f"best {self._metric} {self._best:.4f}" if self._best > float("-inf") else ""
        failed = f", {event.counts.failed} failed" if event.counts.failed else ""
        self._update("evaluations", event.counts.spent, self._evaluations, best + failed)
        self._line(f"{event.counts.spent} of {self._evaluations} evaluations, {best}{failed}")

    def on_model(self, what: str, done: int, total: int) -> None:
        self._update(f"{what} models", done, total)
        self._line(f"{what}: {done} of {total} models")

    def _line(self, text: str) -> None:
        """A plain line now and then, for logs."""
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            self.phase(text)

    def _update(self, name: str, done: int, total: int | None, note: str = "") -> None:
        self._progress.start()
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=total, note="")
        self._progress.update(self._bars[name], completed=done, total=total, note=note)  # type: ignore[arg-type]
