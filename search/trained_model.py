"""One candidate, trained fully and exported, with its scores: what a model's folder of a study holds."""

from __future__ import annotations

import json
import logging
import math
import shutil
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import OmegaConf

from ..errors import StudyError, TaskError
from ..records import Evaluation
from ..schema import Record, read_json, write_json
from ..search_spaces import Deployable
from .deployment import deploy, is_rounded
from .loop import evaluation_seed
from .setup import Components

if TYPE_CHECKING:
    from ..export import ModelCard

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel(Record):
    """A fully trained and exported candidate, before verification; its file is the commit point.

    Args:
        recipe: Digest of what the training depends on (see :func:`recipe`); a model of another
            recipe is not this one.
        validation, test: Of the model as it runs on the device, quantised if it quantises.
        fp32: Metrics by split before that, where the device changes answers; else empty.
        files: In the model's folder; the first is what the device was given.
        error: Why there is no model, or empty. Tried again by the next run.
    """

    SCHEMA: ClassVar[str] = "gnomon.trained_model/1"

    key: str
    recipe: str = ""
    validation: Evaluation | None = None
    test: Mapping[str, float] = field(default_factory=dict)
    fp32: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    max_abs_error: float | None = None
    error: str = ""


def recipe(components: Components) -> str:
    """Digest of what a full training depends on besides the architecture."""
    parts: list[Any] = [components.finalise.budget, components.study.seed]
    parts += [components.task.identity(), components.space.spec()]
    if components.evaluator.gives_initial:
        parts.append(components.evaluator.identity())
    if is_rounded(components.device):
        setting = components.device.setting(components.space.workload)
        parts += [setting.device, setting.precision, setting.options]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def model_id(key: str) -> str:
    """Folder name of an architecture's model."""
    return sha256(key.encode()).hexdigest()[:8]


def train_one(components: Components, key: str) -> None:
    """Trains one architecture fully, exports it and scores the file on test; writes
    ``trained.json`` last, so that its presence means that all the rest is there. A model that
    cannot be trained or exported costs itself only."""
    folder = model_folder(components, key)
    try:
        trained = _train_and_export(components, key, folder)
    except StudyError:
        raise
    except OSError as error:
        raise StudyError(f"cannot write the model: {error}", field="study.dir", value=str(folder)) from error
    except Exception as error:  # A user's model or training code may raise anything.
        log.warning("training of %s failed:\n%s", key, traceback.format_exc())
        trained = TrainedModel(key, recipe(components), error=f"{type(error).__name__}: {error}"[:1000])
    write_json(folder / "trained.json", TrainedModel.SCHEMA, trained.to_dict())
    if not trained.error:
        shutil.rmtree(folder / f"checkpoint-{recipe(components)}", ignore_errors=True)


def _train_and_export(components: Components, key: str, folder: Path) -> TrainedModel:
    from ..export import ModelCard, ModelMetadata, export_model, write_card
    from ..tasks.torch_state import seeded, torch_threads

    space, task = components.space, components.task
    architecture = space.architecture(space.algebra.from_key(key))
    seed = evaluation_seed(components.study.seed, key)
    with seeded(seed):
        model = components.evaluator.initial(architecture)
        if model is None:
            model = space.initial(architecture.config)
    # One thread, whatever the number of workers: the sum of gradients depends on it.
    with torch_threads(1):
        validation = task.train(
            model, components.finalise.budget, seed=seed, checkpoint=folder / f"checkpoint-{recipe(components)}"
        )
    if not math.isfinite(validation.quality):
        raise TaskError("training ended without a quality", field=task.metric, value=validation.quality)
    card = ModelCard(
        name=model_id(key),
        metadata=ModelMetadata(
            architecture,
            task.identity(),
            task.labels,
            task.preprocessing,
            space.interface(architecture.config),
        ),
        metric=task.metric,
        validation={task.metric: validation.quality, **validation.metrics},
        training={"budget": validation.budget, "budget_unit": validation.budget_unit, "seed": seed},
        costs=costs_of(components, key),
    )
    config = OmegaConf.to_yaml(OmegaConf.create(dict(components.config)))
    deployable, modules = space.deployable(architecture.config), space.graph_modules(model)
    assets = {**space.model_files(architecture.config), **task.assets()}
    exported = export_model(deployable, model, folder, card, config=config, modules=modules, assets=assets)
    files = exported.card.files
    test = task.score(exported.path, "test")
    trained = TrainedModel(key, recipe(components), validation, test, files=files, max_abs_error=exported.max_abs_error)
    if is_rounded(components.device):
        trained = _as_deployed(components, exported.deployable, folder, trained)
    write_card(folder, _card_of(exported.card, task.metric, trained))
    return trained


def _as_deployed(components: Components, exported: Deployable, folder: Path, trained: TrainedModel) -> TrainedModel:
    """The model as the device runs it: its file first, and its own scores."""
    task, validation = components.task, trained.validation
    if validation is None:
        return trained
    deployed = deploy(components.device, exported, folder)
    scores = {split: deployed.scores(task, split) for split in ("validation", "test")}
    others = {name: value for name, value in scores["validation"].items() if name != task.metric}
    return replace(
        trained,
        validation=replace(validation, quality=scores["validation"][task.metric], metrics=others),
        test=scores["test"],
        fp32={"validation": {task.metric: validation.quality, **validation.metrics}, "test": trained.test},
        files=(deployed.file, *trained.files) if deployed.file else trained.files,
    )


def _card_of(card: ModelCard, metric: str, trained: TrainedModel) -> ModelCard:
    """The card with what became of the model after its export."""
    if trained.validation is None or not trained.fp32:
        return replace(card, test=trained.test)
    return replace(
        card,
        validation={metric: trained.validation.quality, **trained.validation.metrics},
        test=trained.test,
        fp32=trained.fp32,
        files=trained.files[:1],
        fp32_file=card.files[0] if trained.files[0] != card.files[0] else "",
    )


def costs_of(components: Components, key: str) -> dict[str, float]:
    """Analytic costs by name."""
    columns = components.space.costs(components.space.algebra.from_key(key)[None]).columns()
    return {name: float(column[0]) for name, column in columns.items()}


def finished(components: Components, key: str) -> TrainedModel | None:
    """The model of this recipe, if it was trained without error before."""
    path = model_folder(components, key) / "trained.json"
    if not path.exists():
        return None
    trained = _read(path)
    whole = all((path.parent / name).is_file() for name in trained.files)
    return trained if whole and trained.recipe == recipe(components) and not trained.error else None


def _read(path: Path) -> TrainedModel:
    return TrainedModel.from_dict({"schema": TrainedModel.SCHEMA, **read_json(path, TrainedModel.SCHEMA)})


def model_folder(components: Components, key: str) -> Path:
    """Of one architecture's model, within the study's."""
    return components.study.path / "models" / model_id(key)


def trained_model(components: Components, key: str) -> TrainedModel:
    """What :func:`train_one` left."""
    return _read(model_folder(components, key) / "trained.json")


def shipped(components: Components, trained: TrainedModel) -> Deployable:
    """What the device runs: the exported file, or the architecture where the device takes those."""
    space = components.space
    deployable = space.deployable(space.config(space.algebra.from_key(trained.key)))
    if components.device.accepts != "onnx" or not trained.files:
        return deployable
    folder, files = model_folder(components, trained.key), dict(zip(deployable.graphs, trained.files, strict=False))
    graphs = {
        name: replace(graph, module=None, onnx_path=folder / files[name]) for name, graph in deployable.graphs.items()
    }
    return replace(deployable, graphs=graphs)
