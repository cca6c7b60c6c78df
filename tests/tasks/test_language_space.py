"""Text, the space of hybrid language models, shared weights and exported files together, all tiny."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from gnomon.errors import ConfigError
from gnomon.export import ModelCard, ModelMetadata, export_model
from gnomon.search.setup import make_space
from gnomon.search_spaces.hybrid_slm.adaptive import forward_all
from gnomon.tasks.language.task import LanguageModelling
from gnomon.tasks.language.text_tokenizer import TextTokenizer
from gnomon.tasks.language.texts import TextData, TextSource
from gnomon.tasks.supernet import SupernetTrainer
from gnomon.tasks.weight_sharing.sandwich import Sandwich


@dataclass(frozen=True)
class Sums(TextSource):
    """Lines such as ``12+7=19``."""

    name = "sums"

    def load(self) -> TextData:
        pairs = np.random.default_rng(0).integers(0, 50, (40, 12, 2)).tolist()
        texts = tuple("".join(f"{a}+{b}={a + b}\n" for a, b in page) for page in pairs)
        # Numbers do not count as differences between documents, words do.
        words = np.random.default_rng(1).choice(list("abcdefghij"), (40, 60))
        texts = tuple(f"{' '.join(row)}\n{text}" for row, text in zip(words.tolist(), texts, strict=True))
        return TextData(tuple(map(str, range(40))), texts, "sums")


NODE = {
    "_target_": "gnomon.search_spaces.hybrid_slm.free.HybridSLMFree",
    "vocabulary": None,
    "max_length": None,
    "context": None,
    "mixers": ["attention", "deltanet"],
    "widths": [16],
    "head_sizes": [8],
    "kv_heads": [1],
    "layers": [1, 2],
    "ffns": [0, 1],
}


@pytest.fixture(scope="module")
def task():
    return LanguageModelling(
        Sums(),
        {"batch_size": 4, "lr": 0.01, "label_smoothing": 0.0, "schedule": "cosine"},
        fractions=(0.6, 0.2, 0.2),
        length=32,
        last_length=64,
        last_share=0.3,
        tokens_per_epoch=1280,
        ranges=[[32, 63]],
        weight_normalisation=True,
        recall={"distances": [20], "pairs": 2, "sequences": 4},
        scored=6,
        scored_test=6,
        scored_onnx=3,
    )


@pytest.fixture(scope="module")
def space(task):
    return make_space(OmegaConf.create(NODE), task, [])


def test_the_space_takes_what_the_task_knows(space, task):
    known = task.space_arguments()
    assert (space.vocabulary, space.max_length) == (known["vocabulary"], known["max_length"])
    assert space.workload.context == known["context"] == 64


def test_shared_weights_train_on_text_and_stay_normalised(space, task):
    torch.manual_seed(0)
    model = space.elastic()
    trainer = SupernetTrainer(
        model, space, task.training_data(), task.training, Sandwich(random=1), epochs=2, seed=0, identity={}
    )
    shapes = []
    model.register_forward_pre_hook(lambda module, given: shapes.append(given[0].shape[1]) if module.training else None)
    record = trainer.run()
    assert record.losses[-1] < record.losses[0]
    assert shapes == sorted(shapes)
    assert set(shapes) == {32, 64}, "the last steps have longer windows"
    roles = {name: role for name, role in model.roles().items() if name.startswith("shared")}
    assert roles
    for name, role in roles.items():
        lengths = model.get_parameter(name).norm(dim=1 if role == "reads" else 0)
        assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5), name


@pytest.mark.slow
def test_an_exported_network_scores_like_its_module(space, task, tmp_path):
    config = next(c for c in map(space.config, space.sample(50, np.random.default_rng(0))) if "deltanet" in str(c))
    torch.manual_seed(0)
    model = space.initial(config)
    evaluation = task.train(model, 2, seed=0)
    metadata = ModelMetadata(
        space.architecture(space.genotype(config)),
        task.identity(),
        task.labels,
        task.preprocessing,
        space.interface(config),
    )
    card = ModelCard("sums", metadata, metric=task.metric, validation={task.metric: evaluation.quality}, training={})
    exported = export_model(
        space.deployable(config),
        model,
        tmp_path / "model",
        card,
        modules=space.graph_modules(model),
        assets={**space.model_files(config), **task.assets()},
    )
    assert task.score(exported.path, "test") == pytest.approx(task.score_as_exported(model, "test"), abs=1e-4)
    assert TextTokenizer.of_folder(tmp_path / "model").digest() == task.preprocessing["digest"]


def trained(task, running_weight=0.0, **options):
    """A tiny model of the space after a short training, with the losses of both heads and how much runs."""
    space = make_space(OmegaConf.create({**NODE, "layers": [2], "ffns": [1], **options}), task, [])
    torch.manual_seed(0)
    model = space.build(space.config(space.sample(1, np.random.default_rng(0))[0]))
    plain = LanguageModelling(
        Sums(),
        {"batch_size": 4, "lr": 0.01, "schedule": "cosine"},
        fractions=(0.6, 0.2, 0.2),
        length=32,
        tokens_per_epoch=1280,
        running_weight=running_weight,
    )
    plain.train(model, 4.0, seed=0)
    batch = next(iter(plain.training_data().batches(1, 0)))
    with torch.no_grad():
        made = forward_all(model.eval(), batch.inputs)
    return made, batch


def test_an_early_exit_learns_with_the_last_head(task):
    made, batch = trained(task, exit_after=[2])
    losses = [
        float(torch.nn.functional.cross_entropy(logits[batch.mask], batch.targets[batch.mask]))
        for logits in (made.exit_logits, made.logits)
    ]
    chance = np.log(made.logits.shape[-1])
    assert max(losses) < 0.75 * chance
    assert abs(losses[0] - losses[1]) < 0.5


def test_routers_run_less_where_running_has_a_price(task):
    free, dear = (trained(task, weight, skips=[True])[0].running.mean() for weight in (0.0, 5.0))
    assert dear < free - 0.2


@pytest.mark.parametrize("name", ["exit_weight", "running_weight"])
def test_weights_of_what_is_adaptive_are_checked(name):
    with pytest.raises(ConfigError, match=rf"task.{name}=-1"):
        LanguageModelling(Sums(), **{name: -1})
