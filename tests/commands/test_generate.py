"""``gnomon generate``, and that torch and the exported files write the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gnomon.cli import main
from gnomon.errors import ConfigError, SchemaError
from gnomon.export import ModelCard, ModelMetadata, export_model
from gnomon.search_spaces.hybrid_slm.free import HybridSLMFree
from gnomon.search_spaces.hybrid_slm.interface import interface
from gnomon.search_spaces.hybrid_slm.mixers import mixer_kinds
from gnomon.search_spaces.hybrid_slm.saved import load_language_model
from gnomon.search_spaces.sequence import BEGIN
from gnomon.tasks.language.generation import GenerationTimes, Generator
from gnomon.tasks.language.onnx_model import OnnxLanguageModel
from gnomon.tasks.language.text_tokenizer import TextTokenizer

LENGTH = 150
PROMPT = [BEGIN, *range(70, 80)]


def exported(folder: Path, *kinds: str) -> HybridSLMFree:
    """A folder as a search leaves it, with a model of these mixers and fresh weights."""
    space = HybridSLMFree(
        mixers=kinds,
        layers=[len(kinds)],
        ffns=[1],
        widths=[32],
        head_sizes=[8],
        kv_heads=[2],
        windows=[16],
        tied=[False],
        meta_tokens=[2],
        max_length=LENGTH,
        context=40,
        prompt_length=8,
        generated_length=8,
    )
    names = [f"layer{number}.mixer" for number in range(1, len(kinds) + 1)]
    config = {name: kind for name, kind in zip(names, kinds, strict=True) if name in space.algebra.index}
    torch.manual_seed(1)
    model = space.build(config).eval()
    architecture = space.architecture(space.genotype(config))
    export_model(
        space.deployable(config),
        model,
        folder,
        ModelCard("fresh", ModelMetadata(architecture, interface=space.interface(config))),
        modules=space.graph_modules(model),
        assets={**space.model_files(config), TextTokenizer.FILE: TextTokenizer().to_text()},
    )
    return space


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    exported(folder, "attention", "gla")
    return folder


def greedy(folder: Path, prompt: list[int], count: int) -> list[int]:
    """What the torch model of a folder writes, reading all anew for each token."""
    model, ids = load_language_model(folder), list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def written(folder: Path, prompt: list[int], count: int) -> list[int]:
    return list(Generator(OnnxLanguageModel(folder)).generate(prompt, count, end=None))


# ---- The same 128 tokens -----------------------------------------------------------------------------


def test_torch_and_the_exported_files_write_the_same_128_tokens(folder):
    tokens = written(folder, PROMPT, 128)
    assert tokens == greedy(folder, PROMPT, 128)
    assert len(set(tokens)) > 3, "a model that repeats itself shows nothing"


IN_CI = ("sliding_window", "mamba2", "deltanet")
"""With the two of the folder above; the others take minutes together and run by ``pytest -m soak``."""


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow if k in IN_CI else pytest.mark.soak) for k in mixer_kinds()]
)
def test_every_mixer_writes_the_same_128_tokens(kind, tmp_path):
    exported(tmp_path, kind)
    assert written(tmp_path, PROMPT, 128) == greedy(tmp_path, PROMPT, 128)


# ---- The folder -----------------------------------------------------------------------------------------


def test_the_folder_has_all_that_is_needed(folder):
    found = {path.name for path in folder.iterdir()}
    assert {"prefill.onnx", "step.onnx", "model.json", "weights.safetensors", TextTokenizer.FILE} <= found


def test_files_say_how_they_fit_together(folder):
    assert OnnxLanguageModel(folder).interface == interface(load_language_model(folder).spec)


def test_a_file_that_says_nothing_is_refused(tmp_path):
    space = HybridSLMFree(mixers=["identity"], layers=[1], ffns=[0], widths=[32], head_sizes=[8], max_length=LENGTH)
    model = space.build({}).eval()
    card = ModelCard("silent", ModelMetadata())
    export_model(space.deployable({}), model, tmp_path, card, modules=space.graph_modules(model))
    with pytest.raises(SchemaError):
        list(Generator(OnnxLanguageModel(tmp_path)).generate(PROMPT, 3))


# ---- Choosing tokens --------------------------------------------------------------------------------------


def test_drawn_tokens_depend_on_the_seed_alone(folder):
    model = OnnxLanguageModel(folder)
    drawn = [list(Generator(model, 1.0, seed).generate(PROMPT, 20, end=None)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_low_temperature_is_nearly_none(folder):
    model = OnnxLanguageModel(folder)
    assert list(Generator(model, 1e-4).generate(PROMPT, 20, end=None)) == written(folder, PROMPT, 20)


def test_times_are_of_the_prompt_and_of_every_step(folder):
    times = GenerationTimes()
    list(Generator(OnnxLanguageModel(folder)).generate(PROMPT, 5, times, end=None))
    assert (times.prompt_tokens, len(times.step_ms)) == (len(PROMPT), 4)
    assert times.ms_per_token == pytest.approx(np.median(times.step_ms))
    assert times.time_to_first_token_ms > 0


def test_the_end_ends_it(folder):
    tokens = written(folder, PROMPT, 20)
    end = tokens[4]
    found = list(Generator(OnnxLanguageModel(folder)).generate(PROMPT, 20, end=end))
    assert found == tokens[: tokens.index(end)]


@pytest.mark.parametrize(
    ("prompt", "tokens", "said"),
    [([], 5, "prompt"), ([260], 5, "prompt"), (PROMPT, LENGTH, "tokens"), ([5] * LENGTH, 1, "tokens")],
)
def test_what_the_model_was_not_made_for_is_refused(folder, prompt, tokens, said):
    with pytest.raises(ConfigError, match=said):
        list(Generator(OnnxLanguageModel(folder)).generate(prompt, tokens))


# ---- The command ------------------------------------------------------------------------------------------


def test_the_command_streams_text_and_says_what_a_token_took(folder, capsys):
    assert main(["generate", f"from={folder}", "hello", "tokens=12"]) == 0
    text = capsys.readouterr().out
    expected = TextTokenizer().decode(
        Generator(OnnxLanguageModel(folder)).generate([BEGIN, *TextTokenizer().encode("hello")], 12)
    )
    assert text.startswith("hello" + expected)
    assert "ms a token" in text


def test_the_command_as_json(folder, capsys):
    arguments = ["generate", f"from={folder}", "a", "b", "tokens=6", "temperature=0.5", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["prompt"] for row in found] == ["a", "b"]
    assert all(row["prompt_tokens"] == 2 and row["time_to_first_token_ms"] > 0 for row in found)


@pytest.mark.parametrize(
    ("override", "said"),
    [("tokens=0", "tokens"), ("tokens=many", "tokens"), ("temperature=-1", "temperature"), ("threads=0", "threads")],
)
def test_the_command_refuses_what_makes_no_sense(folder, capsys, override, said):
    assert main(["generate", f"from={folder}", "hello", override]) == 2
    assert said in capsys.readouterr().err


def test_the_command_needs_a_model(tmp_path, capsys):
    assert main(["generate", "hello"]) == 2
    assert "from" in capsys.readouterr().err
    assert main(["generate", f"from={tmp_path}", "hello"]) == 2
    assert "prefill.onnx" in capsys.readouterr().err


def test_a_folder_of_sentence_pairs_is_refused(tmp_path, capsys):
    (tmp_path / "tokenizers.json").write_text("{}")
    assert main(["generate", f"from={tmp_path}", "hello"]) == 2
    assert "gnomon translate" in capsys.readouterr().err
