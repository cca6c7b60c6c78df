"""Progress bars of the predictor commands, on stderr so that stdout holds results only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def counted(text: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (done, total)."""
    with _progress() as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def evaluation(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[Any], None]]]:
    """A bar over adapted models, told the name of each, and one of a meta-training, told its state
    (:class:`gnomon.predictors.help.MetaProgress`)."""
    with _progress() as bar:
        models = bar.add_task("adapted models", total=total)
        training = bar.add_task("meta-training", visible=False)

        def model(name: str) -> None:
            bar.update(models, advance=1, description=f"adapted models ({name})")

        def trained(state: Any) -> None:
            bar.update(training, completed=state.episode, total=state.episodes, visible=state.episode < state.episodes)

        yield model, trained


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
