"""Exported transformers through ONNX Runtime, against torch; the direct writer against torch's exporter."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from gnomon.errors import TaskError
from gnomon.export import check_exported, export_deployable
from gnomon.export.direct import EXPORTER
from gnomon.search_spaces.hat import HATDecoderSpace, HATSpace
from gnomon.search_spaces.sequence import BEGIN, END, PAD
from gnomon.tasks.sequences.onnx_model import OnnxSequenceToSequence

SIZES = {
    "source_vocabulary": 40,
    "target_vocabulary": 30,
    "widths": (12, 16),
    "ffn_widths": (8, 24),
    "qkv_width": 16,
    "source_length": 6,
    "generated_length": 5,
    "max_length": 32,
    "shared_embeddings": "none",  # tied tables let an untrained model repeat its last token for ever
}


def exported(space, folder, *, direct, name=None):
    """A network of a space and the model of its files."""
    torch.manual_seed(1)
    config = dict(space.named[name]) if name else space.config(space.sample(1, np.random.default_rng(3))[0])
    model = space.build(config).eval()
    modules = space.graph_modules(model)
    result = export_deployable(space.deployable(config), folder, modules=modules, direct=direct)
    check_exported(result, modules, tolerance=1e-5)
    return model, OnnxSequenceToSequence(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    space = HATSpace(**SIZES, encoder_layers=(2,), decoder_layers=(1, 2), attended=(1, 2))
    return exported(space, tmp_path_factory.mktemp("model"), direct=True)


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(4, 40, (3, 7), generator=generator)
    source[:, -1] = END
    source[1, 3:] = PAD
    target = torch.randint(4, 30, (3, 5), generator=generator)
    target[:, 0] = BEGIN
    return source, target


def greedy(model, source, steps=12):
    """Token ids ``(B, steps)``."""
    state, tokens, found = model.start(source), torch.full((len(source),), BEGIN), []
    for _ in range(steps):
        with torch.no_grad():
            logits, state = model.step(tokens, state)
        tokens = logits.argmax(dim=-1)
        found.append(tokens)
    return torch.stack(found, dim=1)


def test_token_for_token_like_torch(pair, tokens):
    model, files = pair
    expected = greedy(model, tokens[0])
    assert len(expected.unique()) > 3, "a model that always says the same proves little"
    assert torch.equal(greedy(files, tokens[0]), expected)


def test_a_prompt_is_continued_token_for_token(tmp_path, tokens):
    """Caches that were exported for several beams serve single rows."""
    model, files = exported(HATDecoderSpace(**SIZES, decoder_layers=(2,), beam=3), tmp_path, direct=True)
    assert torch.equal(greedy(files, tokens[0]), greedy(model, tokens[0]))
    with torch.no_grad():
        torch.testing.assert_close(files(*tokens), model(*tokens), rtol=0, atol=1e-5)


def test_all_logits_like_torch(pair, tokens):
    model, files = pair
    with torch.no_grad():
        torch.testing.assert_close(files(*tokens), model(*tokens), rtol=0, atol=1e-5)


def test_reordered_rows_go_on_as_they_would(pair, tokens):
    _, files = pair
    source, target = tokens
    rows = torch.tensor([2, 0, 0, 1])
    _, state = files.step(target[:, 0], files.start(source))
    expected, _ = files.step(target[:, 1], state)
    found, _ = files.step(target[rows, 1], files.reorder(state, rows))
    torch.testing.assert_close(found, expected[rows], rtol=0, atol=1e-6)
    same, _ = files.step(target[:, 1], files.reorder(state, torch.arange(3)))
    torch.testing.assert_close(same, expected, rtol=0, atol=0)


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(TaskError, match=r"step\.onnx"):
        OnnxSequenceToSequence(tmp_path)


def test_graphs_of_two_networks_are_refused(tmp_path):
    space = HATSpace(**SIZES)
    exported(space, tmp_path, direct=True, name="plain_3x1")
    step = (tmp_path / "step.onnx").read_bytes()
    exported(space, tmp_path, direct=True, name="plain_3x2")
    (tmp_path / "step.onnx").write_bytes(step)
    with pytest.raises(TaskError, match="do not fit"):
        OnnxSequenceToSequence(tmp_path)


def test_a_token_outside_the_vocabulary_is_an_error(pair, tokens):
    with pytest.raises(TaskError, match="vocabulary"):
        pair[1].start(tokens[0] + 1000)


def test_shared_weights_go_through_torchs_exporter(tmp_path):
    """Slices of larger weights are not what the direct writer knows, hence not written by it."""
    space = HATSpace(**SIZES, encoder_layers=(1,), decoder_layers=(1,), attended=(1,))
    model = space.elastic().eval()
    model.select(space.named["smallest"])
    modules = space.graph_modules(model)
    result = export_deployable(space.deployable(space.named["smallest"]), tmp_path, modules=modules, direct=True)
    check_exported(result, modules, tolerance=1e-5)
    for graph in result.graphs.values():
        assert writer(graph.onnx_path).startswith("torch.onnx")


def writer(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}[EXPORTER]


def operators(path, folder):
    """What ONNX Runtime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("space_class", [HATSpace, HATDecoderSpace])
def test_both_writers_give_the_runtime_the_same_operators(space_class, tmp_path, tokens):
    space = space_class(**SIZES)
    model, files = exported(space, tmp_path / "torch", direct=False)
    _, quick = exported(space, tmp_path / "direct", direct=True)
    assert torch.equal(greedy(files, tokens[0]), greedy(model, tokens[0]))
    torch.testing.assert_close(files(*tokens), quick(*tokens), rtol=0, atol=1e-5)
    for path in (tmp_path / "direct").iterdir():
        twin = tmp_path / "torch" / path.name
        assert writer(path) == "gnomon.export.direct"
        found, expected = (operators(file, tmp_path) for file in (path, twin))
        assert found == expected, path.name
