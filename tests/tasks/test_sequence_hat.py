"""The task with networks of the space `hat`: trained, exported, and scored as files."""

from itertools import product

import pytest
import torch
from omegaconf import OmegaConf

from gnomon.export import ModelCard, ModelMetadata, export_model
from gnomon.search.setup import make_space
from gnomon.tasks.sequences.batching import padded
from gnomon.tasks.sequences.decoding import decode
from gnomon.tasks.sequences.onnx_model import OnnxSequenceToSequence
from gnomon.tasks.sequences.pairs import PairData, PairSource
from gnomon.tasks.sequences.task import SequencePairs

torch.set_num_threads(1)


class Reversed(PairSource):
    """Words to the names of their letters, last first: position matters."""

    name = "reversed"
    unit = "name"

    def load(self) -> PairData:
        words = ["".join(letters) for n in (2, 3, 4) for letters in product("abcde", repeat=n)]
        return PairData(tuple(words), tuple(" ".join(w[::-1].upper()) for w in words), ("a", "b"), "words", self.unit)


RECIPE = {"batch_size": 32, "lr": 0.01, "schedule": "cosine", "warmup": 0.1, "label_smoothing": 0.1}


def make(target: str, **sizes):
    task = SequencePairs(Reversed(), RECIPE, max_tokens=6, beam=2)
    node = {"_target_": target, "source_vocabulary": None, "target_vocabulary": None, "source_length": None}
    node |= {"generated_length": None, "max_length": None, "beam": None, "dropout": 0.0, "qkv_width": 16, **sizes}
    return task, make_space(OmegaConf.create(node), task, [])


HAT = {
    "widths": [16, 24],
    "ffn_widths": [32],
    "heads": [2],
    "encoder_layers": [1, 2],
    "decoder_layers": [1, 2],
    "attended": [1, 2],
}


@pytest.fixture(scope="module")
def trained():
    task, space = make("gnomon.search_spaces.hat.HATSpace", **HAT)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = space.build(space.named["plain_2x1"])
    return task, space, model, task.train(model, 20, seed=0)


def test_the_space_takes_its_arguments_from_the_task(trained):
    task, space, *_ = trained
    known = task.space_arguments()
    assert space.workload.input_shape == task.input_shape
    assert space.workload.generated_length == known["generated_length"]
    assert (space.vocabulary.source, space.vocabulary.target) == (9, 9)


def test_a_transformer_learns_to_reverse(trained):
    task, _, model, evaluation = trained
    assert evaluation.curve[0] < 0.7 < 0.9 < evaluation.quality
    assert task.score(model, "test")["name_accuracy"] > 0.9


@pytest.mark.slow
def test_exported_files_write_token_for_token_what_torch_writes(trained, tmp_path):
    task, space, model, _ = trained
    config = space.named["plain_2x1"]
    card = ModelCard("reversed", ModelMetadata(task=task.identity(), preprocessing=task.preprocessing))
    exported = export_model(
        space.deployable(config), model, tmp_path, card, modules=space.graph_modules(model), assets=task.assets()
    )
    source = padded(task.data.sources("test"))
    onnx = OnnxSequenceToSequence(tmp_path)
    for beam in (1, 3):
        with torch.no_grad():
            assert decode(onnx, source, 6, beam=beam) == decode(model, source, 6, beam=beam)
    expected, found = task.score(model, "test"), task.score(exported.path, "test")
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_files_of_a_decoder_only_network_write_what_torch_writes(tmp_path):
    sizes = {name: sides for name, sides in HAT.items() if name not in ("encoder_layers", "attended")}
    task, space = make("gnomon.search_spaces.hat.HATDecoderSpace", **sizes)
    config = space.named["plain_2"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = space.build(config).eval()
    modules = space.graph_modules(model)
    export_model(space.deployable(config), model, tmp_path, ModelCard("x", ModelMetadata()), modules=modules)
    source, onnx = padded(task.data.sources("test")), OnnxSequenceToSequence(tmp_path)
    assert space.workload.beam == 2
    for beam in (1, 3):
        with torch.no_grad():
            assert decode(onnx, source, 6, beam=beam) == decode(model, source, 6, beam=beam)
