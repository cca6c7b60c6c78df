"""Stand-alone trainings that benchmarks share: each is done once, kept as a file, and survives a kill.

One JSON file a training in a folder (default ``runs/benchmarks/trainings``), named by a hash of what it is:
network, task (data, split, recipe), epochs and seed. Several processes, also started apart from each other, may
work through the same list: each training is claimed by a lock that the system frees when its holder dies. A training
repeats to the bit on the same machine, so that what is found in the folder is what would be computed.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks._common import ROOT
from benchmarks._kept import Kept, NothingKept
from gnomon.errors import SchemaError
from gnomon.schema import Record, read_json, write_json

if TYPE_CHECKING:
    from torch import nn

    from gnomon.records import Evaluation
    from gnomon.tasks import Task

FOLDER = ROOT / "runs" / "benchmarks" / "trainings"
SCHEMA = "gnomon.benchmark.training/1"


class Network(Protocol):
    """What can be trained; small enough to be sent to another process."""

    def spec(self) -> dict[str, Any]:
        """What it is, as JSON: equal specifications are equal networks."""
        ...

    def build(self) -> nn.Module:
        """The module, freshly initialised under torch's current seed."""
        ...


@dataclass(frozen=True)
class SpaceNetwork:
    """An architecture of a search space.

    Args:
        space: As ``SearchSpace.spec()`` gives it, in JSON (a text, so that networks can be compared and hashed).
        key: Of the architecture.
        config: Of the architecture, in JSON.
    """

    space: str
    key: str
    config: str

    @classmethod
    def of(cls, space: Any, row: Any) -> SpaceNetwork:
        """Of one canonical row of a space."""
        architecture = space.architecture(row)
        spec, config = (json.dumps(plain, sort_keys=True) for plain in (architecture.space, architecture.config))
        return cls(spec, architecture.key, config)

    def spec(self) -> dict[str, Any]:
        return {"kind": "space", "space": json.loads(self.space), "key": self.key}

    def build(self) -> nn.Module:
        from gnomon.search_spaces import space_from_spec

        return space_from_spec(json.loads(self.space)).build(json.loads(self.config))


@dataclass(frozen=True)
class Training:
    """One training from scratch.

    Args:
        network: What is trained.
        task: Words of ``gnomon search`` that choose the task and its recipe, for example ``("task=animals",)``.
        epochs: Budget.
        seed: Of weights, order and augmentation.
    """

    network: Network
    task: tuple[str, ...]
    epochs: float
    seed: int

    def identity(self) -> dict[str, Any]:
        """What makes two trainings the same, as JSON."""
        return {
            "network": self.network.spec(),
            "task": task_of(self.task).identity(),
            "epochs": float(self.epochs),
            "seed": self.seed,
        }

    def name(self) -> str:
        """Of its file."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    RESULT: ClassVar[type[Record]]
    """What is kept; other figures than accuracy are those of a subclass, whose ``result`` makes them."""

    def make_task(self) -> Task:
        """What trains it; a subclass may change the recipe."""
        return task_of(self.task)

    def kept(self, model: nn.Module, evaluation: Evaluation) -> Record:
        """What is kept of a finished training; by default :meth:`result`."""
        return self.result(model, evaluation.cost_s)

    def result(self, model: nn.Module, seconds: float) -> Record:
        """Of the trained model."""
        task = task_of(self.task)
        scores = {split: task.score(model, split) for split in ("validation", "test")}
        return TrainingResult(
            validation_accuracy=scores["validation"]["accuracy"],
            validation_loss=scores["validation"]["loss"],
            test_accuracy=scores["test"]["accuracy"],
            test_loss=scores["test"]["loss"],
            seconds=seconds,
        )


@dataclass(frozen=True)
class TrainingResult(Record):
    """What a training gave: accuracies 0..1, losses in nats, seconds on one thread."""

    SCHEMA: ClassVar[str] = ""

    validation_accuracy: float
    validation_loss: float
    test_accuracy: float
    test_loss: float
    seconds: float


Training.RESULT = TrainingResult
AnyTraining = TypeVar("AnyTraining", bound=Training)


@functools.lru_cache(maxsize=4)
def task_of(words: tuple[str, ...]) -> Task:
    """The task that these words of ``gnomon search`` choose; its data are loaded once a process."""
    from gnomon.conf.compose import compose
    from gnomon.search.instantiate import instantiate

    task: Task = instantiate(compose("search", list(words)).task, "task")
    return task


class TrainingStore:
    """Finished trainings in a folder.

    Args:
        folder: Made when the first result is kept.
        kept: Finished ones of earlier runs, which this run's are added to.
    """

    def __init__(self, folder: Path = FOLDER, kept: Kept | None = None) -> None:
        self.folder, self.kept = Path(folder), kept or NothingKept()

    def path(self, training: Training) -> Path:
        """Of a training's result."""
        return self.folder / f"{training.name()}.json"

    def get(self, training: Training) -> Any | None:
        """The result, or None where there is none yet.

        Raises:
            SchemaError: If the file is damaged, or of another training or version.
        """
        path = self.path(training)
        if not path.is_file():
            return self.kept.training(training)
        data = read_json(path, SCHEMA)
        if data.get("training") != json.loads(json.dumps(training.identity())):
            raise SchemaError(f"{path} holds another training than its name says", hint="Delete this file.")
        return training.RESULT.from_dict(data["result"])

    def put(self, training: Training, result: Record) -> None:
        """Keeps a result, atomically."""
        write_json(self.path(training), SCHEMA, {"training": training.identity(), "result": result.to_dict()})

    @contextlib.contextmanager
    def claim(self, training: Training) -> Iterator[bool]:
        """Whether this process may do the training now: no other one is at it. Freed at the end or by death."""
        try:
            import fcntl
        except ImportError:  # Not on every platform; there, two runners may do the same training twice.
            yield True
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / f".{training.name()}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(descriptor)


def train(training: Training) -> Any:
    """Does one training on one thread."""
    from gnomon.tasks.torch_state import derived_seed, seeded, torch_threads

    task = training.make_task()
    with torch_threads(1):
        with seeded(derived_seed(training.seed)):
            model = training.network.build()
        evaluation = task.train(model, training.epochs, seed=training.seed)
        return training.kept(model, evaluation)


def run_all(
    trainings: Iterable[AnyTraining], store: TrainingStore, *, processes: int = 1, title: str = "trainings"
) -> dict[AnyTraining, Any]:
    """Does those of the trainings that are not in the store, in their order, and returns all results.

    What another runner is at is left to it; a last look does what it left undone.

    Args:
        trainings: Equal ones are done once.
        store: Where results are kept.
        processes: That work at once, one torch thread each.
        title: For the progress bar.

    Raises:
        GnomonError: What a training raised; the finished ones are kept.
    """
    wanted = list(dict.fromkeys(trainings))
    results = {training: found for training in wanted if (found := store.get(training)) is not None}
    for training, result in results.items():
        store.kept.keep(training, result)
    missing = [training for training in wanted if training not in results]
    with _bar() as bar:
        shown = bar.add_task(title, total=len(wanted), completed=len(results))
        for training, result in _done(missing, store, processes):
            results[training] = result
            store.kept.keep(training, result)
            bar.update(shown, completed=len(results))
    return {training: results[training] for training in wanted}


def _done(missing: Sequence[AnyTraining], store: TrainingStore, processes: int) -> Iterator[tuple[AnyTraining, Any]]:
    """Pairs in the order of their end; what other runners hold comes last, when they have finished."""
    if processes <= 1:
        later = []
        for training in missing:
            result = _one(training, store.folder)
            if result is None:
                later.append(training)
            else:
                yield training, result
        for training in later:
            yield training, _waited(training, store.folder)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_one_thread) as pool:
        futures = {pool.submit(_one, training, store.folder): training for training in missing}
        later = []
        for future in as_completed(futures):
            result = future.result()
            if result is None:
                later.append(futures[future])
            else:
                yield futures[future], result
        again = {pool.submit(_waited, training, store.folder): training for training in later}
        for waited in as_completed(again):
            yield again[waited], waited.result()


def _one_thread() -> None:
    """Before torch is imported: its own setting does not reach every library."""
    os.environ["OMP_NUM_THREADS"] = "1"


def _waited(training: Training, folder: Path) -> Any:
    """The result, after whoever holds the training has ended."""
    while (result := _one(training, folder)) is None:
        time.sleep(2.0)
    return result


def _one(training: Training, folder: Path) -> Any | None:
    """From the store, or done now; None where another runner is at it."""
    store = TrainingStore(folder)
    with store.claim(training) as is_ours:
        result = store.get(training)
        if result is None and is_ours:
            result = train(training)
            store.put(training, result)
    return result


def _bar() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """``--trainings`` and ``--processes``, for benchmarks that train."""
    parser.add_argument(
        "--trainings", type=Path, default=FOLDER, metavar="FOLDER", help="where finished trainings are kept"
    )
    parser.add_argument("--processes", type=int, default=1, help="trainings at once, one thread each")
    return parser
