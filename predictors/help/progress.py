"""Meta-training as a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .meta_learning import MetaProgress


@contextmanager
def progress_bar() -> Iterator[Callable[[MetaProgress], None]]:
    """A bar on standard error; gives the callback for :meth:`HelpPredictor.fit`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("meta-training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}, Spearman {task.fields[best]:.3f}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None, loss=float("nan"), best=float("nan"))

        def show(progress: MetaProgress) -> None:
            bar.update(
                task, completed=progress.episode, total=progress.episodes, loss=progress.loss, best=progress.best
            )

        yield show
