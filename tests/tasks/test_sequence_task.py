"""Sequence tasks on tiny data: the promises of every task, and those of sequences."""

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gnomon import cli
from gnomon.errors import ConfigError, GnomonError, TaskError
from gnomon.search_spaces.sequence import BEGIN, END, PAD
from gnomon.tasks.sequences.pairs import PairData, PairSource
from gnomon.tasks.sequences.task import SequencePairs
from gnomon.tasks.sequences.tokenizer_pair import TokenizerPair
from gnomon.tasks.sequences.translator import Translator
from gnomon.testing import TaskSuite

torch.set_num_threads(1)

VERBS = {"open": "öffne", "close": "schließe", "delete": "lösche", "save": "sichere", "print": "drucke"}
THINGS = {"file": "Datei", "page": "Seite", "list": "Liste", "map": "Karte", "note": "Notiz", "row": "Zeile"}
PLACES = {"here": "hier", "now": "jetzt", "again": "wieder", "later": "später"}


@dataclass(frozen=True)
class Phrases(PairSource):
    """Word-for-word translations of three words each; one is repeated, one has two translations."""

    name = "phrases"
    extra: str = "the {count} pages"

    def load(self) -> PairData:
        pairs = [
            (f"{verb} the {thing} {place}", f"{VERBS[verb]} die {THINGS[thing]} {PLACES[place]}")
            for verb in VERBS
            for thing in THINGS
            for place in PLACES
        ]
        pairs += [pairs[0], (pairs[1][0], "ganz anders"), (self.extra, "die {count} Seiten")]
        sources, targets = zip(*pairs, strict=True)
        return PairData(sources, targets, ("en", "de"), f"phrases {self.extra}")


@dataclass(frozen=True)
class Letters(PairSource):
    """Words of three letters to the names of their letters."""

    name = "letters"
    unit: str = "sound"
    letters: str = "abcdef"

    def load(self) -> PairData:
        words = [a + b + c for a in self.letters for b in self.letters for c in "xyz"]
        return PairData(tuple(words), tuple(" ".join(w.upper()) for w in words), ("en", "names"), "letters", self.unit)


class Recurrent(nn.Module):
    """A recurrent encoder and decoder without attention: the least that follows the protocol."""

    def __init__(self, source: int, target: int, width: int = 24) -> None:
        super().__init__()
        self.read, self.write = nn.Embedding(source, width, PAD), nn.Embedding(target, width, PAD)
        self.encoder, self.decoder = nn.GRU(width, width, batch_first=True), nn.GRUCell(width, width)
        self.dropout, self.out = nn.Dropout(0.1), nn.Linear(width, target)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        state, logits = self.start(source), []
        for tokens in target.unbind(dim=1):
            next_logits, state = self.step(tokens, state)
            logits.append(next_logits)
        return torch.stack(logits, dim=1)

    def start(self, source: torch.Tensor) -> torch.Tensor:
        outputs, _ = self.encoder(self.read(source))
        lengths = (source != PAD).sum(dim=1)
        return outputs[torch.arange(len(source)), lengths - 1]

    def step(self, tokens: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = self.decoder(self.dropout(self.write(tokens)), state)
        return self.out(state), state

    def reorder(self, state: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return state[rows]


class Encoder(nn.Module):
    def __init__(self, model: Recurrent) -> None:
        super().__init__()
        self.model = model

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        # Padding behind the end moves the hidden state; the state at the end is what counts.
        outputs, _ = self.model.encoder(self.model.read(source))
        last = (source == END).to(torch.float32)[:, :, None]
        return (outputs * last).sum(dim=1)


class Step(nn.Module):
    def __init__(self, model: Recurrent) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, state = self.model.step(tokens[:, 0], hidden)
        return logits[:, None], state


def export(model: Recurrent, folder) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length")
    source, hidden = torch.full((2, 5), END), torch.zeros(2, 24)
    plans = {
        "encoder": (Encoder(model), (source,), ["source"], ["hidden"], ({0: rows, 1: length},)),
        "step": (
            Step(model),
            (torch.full((2, 1), BEGIN), hidden),
            ["tokens", "hidden"],
            ["logits", "next_hidden"],
            ({0: rows}, {0: rows}),
        ),
    }
    for name, (module, inputs, names, outputs, shapes) in plans.items():
        torch.onnx.export(
            module,
            inputs,
            str(folder / f"{name}.onnx"),
            input_names=names,
            output_names=outputs,
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
    return folder


RECIPE = {"batch_size": 16, "lr": 0.01, "label_smoothing": 0.1, "schedule": "cosine"}


def phrases_task(**changes: Any) -> SequencePairs:
    arguments = {"data": Phrases(), "training": RECIPE, "vocabulary_size": 330, "max_tokens": 24, "decoded": 8}
    return SequencePairs(**{**arguments, **changes})


def letters_task(**changes: Any) -> SequencePairs:
    arguments = {"data": Letters(), "training": RECIPE, "fractions": (0.6, 0.2, 0.2), "max_tokens": 8, "decoded": None}
    return SequencePairs(**{**arguments, **changes})


def model_of(task: SequencePairs) -> Recurrent:
    known = task.space_arguments()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Recurrent(known["source_vocabulary"], known["target_vocabulary"])


class SequenceSuite(TaskSuite):
    budget = 2.0

    @pytest.fixture
    def model_factory(self, task):
        return lambda: model_of(task)

    def exported(self, task, model, folder):
        return export(model, folder)

    @pytest.mark.slow
    def test_onnx_scores_like_torch(self, task, model_factory, tmp_path):
        super().test_onnx_scores_like_torch(task, model_factory, tmp_path)


class TestText(SequenceSuite):
    @pytest.fixture
    def task(self):
        return phrases_task()

    @pytest.fixture
    def other_task(self):
        return phrases_task(data=Phrases("the {count} rows"))


class TestSymbolsWithBeamAndAveragedWeights(SequenceSuite):
    budget = 2.5

    @pytest.fixture
    def task(self):
        return letters_task(beam=3, training={**RECIPE, "ema_decay": 0.9})

    @pytest.fixture
    def other_task(self):
        return letters_task(data=Letters(letters="abcdeg"))


# ---- Beside the suite ------------------------------------------------------------------------------


def test_a_model_learns_and_scores_have_their_names():
    task = letters_task(training={**RECIPE, "lr": 0.02, "label_smoothing": 0.0})
    model = model_of(task)
    evaluation = task.train(model, 40, seed=0)
    assert evaluation.quality > 0.8
    assert evaluation.curve[0] < 0.5
    scores = task.score(model, "test")
    assert scores["sound_accuracy"] == pytest.approx(1 - scores["sound_error_rate"])
    assert set(scores) == {"sound_accuracy", "sound_error_rate", "exact", "loss", "likelihood"}
    assert set(phrases_task().score(model_of(phrases_task()), "test")) == {"bleu", "chrf", "loss", "likelihood"}


def test_likelihood_needs_no_decoding_while_training():
    task = letters_task(metric="likelihood")
    model = model_of(task)
    evaluation = task.train(model, 1, seed=0)
    assert set(evaluation.metrics) == {"loss", "likelihood"}
    assert "sound_accuracy" in task.score(model, "test")


def test_logits_are_of_target_tokens_only_and_the_loss_is_smoothed():
    task = phrases_task()
    data, model = task.training_data(), model_of(task).eval()
    batch = next(iter(data.batches(0, 0)))
    logits = data.logits(model, batch)
    assert logits.shape == (int((batch.target != PAD).sum()), task.tokenizers.target.size)
    assert (batch.given[:, 0] == BEGIN).all()
    assert (batch.given[:, 1:] == batch.target[:, :-1]).all()
    labels = batch.target[batch.target != PAD]
    expected = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert data.loss(logits, batch).item() == pytest.approx(expected.item())


def test_batches_are_of_like_length_and_depend_on_seed_and_epoch_only():
    data = phrases_task().training_data()

    def epoch(seed, number):
        return [batch.source.tolist() for batch in data.batches(seed, number)]

    assert epoch(0, 0) == epoch(0, 0)
    assert epoch(0, 0) != epoch(0, 1)
    assert epoch(0, 0) != epoch(1, 0)
    assert len(epoch(0, 0)) == data.batches_per_epoch
    padding = sum((batch.source == PAD).sum().item() for batch in data.batches(0, 0))
    tokens = sum(batch.source.numel() for batch in data.batches(0, 0))
    assert padding / tokens < 0.1


def test_parts_of_a_batch_are_the_batch():
    data = phrases_task().training_data()
    batch = next(iter(data.batches(0, 0)))
    parts = [data.part(batch, i, 3) for i in range(3)]
    assert sorted(row for part in parts for row in part.source.tolist()) == sorted(batch.source.tolist())


def test_assets_rebuild_the_tokenizers(tmp_path):
    task = phrases_task()
    for name, text in task.assets().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    rebuilt = TokenizerPair.of_folder(tmp_path)
    assert rebuilt.shared
    assert rebuilt.digest() == task.preprocessing["digest"]
    text = "open the {count} files ßäü"
    assert rebuilt.encode_sources([text]) == task.tokenizers.encode_sources([text])


def test_space_arguments_fit_what_models_are_given():
    task = phrases_task()
    known = task.space_arguments()
    assert known["source_vocabulary"] == known["target_vocabulary"] == task.tokenizers.target.size
    assert task.labels == (), "thousands of sub-words do not belong into cards and files"
    assert task.input_shape == (known["source_length"],)
    assert max(len(ids) for split in ("train", "test") for ids in task.data.sources(split)) <= known["max_length"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"training": {"flip": True}}, "task.training.flip"),
        ({"training": {"shift": 1}}, "task.training.shift"),
        ({"metric": "sound_accuracy"}, "task.metric"),
        ({"vocabulary_size": 100}, "task.vocabulary_size"),
        ({"max_tokens": 1}, "task.max_tokens"),
        ({"decoded": 0}, "task.decoded"),
        ({"beam": 0}, "task.beam"),
        ({"length_penalty": -1.0}, "task.length_penalty"),
        ({"data": "de"}, "task.data"),
    ],
)
def test_wrong_arguments_are_named(changes, field):
    with pytest.raises(ConfigError, match=field):
        _ = phrases_task(**changes).data


def test_a_model_of_another_vocabulary_is_refused():
    task = phrases_task()
    with pytest.raises(TaskError, match="one logit per token"):
        task.train(Recurrent(task.tokenizers.source.size, 50 + task.tokenizers.target.size), 1, seed=0)
    with pytest.raises(GnomonError, match="cannot run"):
        task.score(Recurrent(10, 10), "test")


@pytest.fixture(scope="module")
def trained():
    """A model that has learned something."""
    task = letters_task()
    model = model_of(task)
    task.train(model, 10, seed=0)
    return model


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """The model's folder, as a search leaves it."""
    folder = export(trained, tmp_path_factory.mktemp("model"))
    for name, text in letters_task().assets().items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_folder_scores_like_its_module(folder, trained):
    task = letters_task()
    assert task.score(folder, "test") == pytest.approx(task.score(trained, "test"), abs=1e-4)


def translate(capsys, *words):
    code = cli.main(["translate", *words])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_translate_writes_a_line_for_each_text(folder, trained, capsys, monkeypatch):
    texts = ["abx", "fez", "", "CAY"]
    expected = Translator(trained, letters_task().tokenizers).translate(texts, beam=2)
    assert expected[2] == ""
    assert all(expected[i] for i in (0, 1, 3))
    code, out, _ = translate(capsys, f"from={folder}", "beam=2", *texts)
    assert (code, out.split("\n")) == (0, [*expected, ""])
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(texts)))
    code, out, _ = translate(capsys, f"from={folder}", "beam=2", "--json")
    assert json.loads(out) == [{"source": s, "target": t} for s, t in zip(texts, expected, strict=True)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["abc"], "from=None"),
        (["from=nowhere", "abc"], "nowhere"),
        (["from={folder}", "beam=0", "abc"], "beam=0"),
        (["from={folder}", "length_penalty=-1", "abc"], "length_penalty=-1"),
        (["from={folder}", "beam=true", "abc"], "beam=True"),
        (["from={folder}", "length_penalty=abc", "abc"], "length_penalty='abc': not a number"),
        (["from={folder}", "bean=2", "abc"], "beam"),
        (["from={folder}", "x=1"], "standard input"),
        (["from={folder}", "-- a comment"], "standard input"),
        (["from={folder}", "abc", "--plan"], "(allowed: with measure operators, measure pool"),
        (["from={folder}", "--jsn", "abc"], "unknown flag (allowed: --help, --json, --config-dir)"),
    ],
)
def test_translate_says_what_is_wrong(folder, capsys, words, says):
    code, _, error = translate(capsys, *(word.format(folder=folder) for word in words))
    assert code == 2
    assert says in error


def test_a_language_models_folder_is_refused(tmp_path, capsys):
    (tmp_path / "text_tokenizer.json").write_text("{}")
    assert "gnomon generate" in translate(capsys, f"from={tmp_path}", "abc")[2]


def test_other_commands_take_no_texts(capsys):
    assert cli.main(["spaces", "some text"]) == 2
    assert "not an override" in capsys.readouterr().err


def test_a_folder_without_the_step_is_refused(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "step.onnx").unlink()
    with pytest.raises(TaskError, match=r"step\.onnx"):
        letters_task().score(copy, "test")


def test_a_damaged_step_is_refused(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "step.onnx").write_bytes(b"not a model")
    with pytest.raises(TaskError, match="cannot load"):
        letters_task().score(copy, "test")
    shutil.copyfile(folder / "encoder.onnx", copy / "step.onnx")
    with pytest.raises(TaskError, match="no decode step"):
        letters_task().score(copy, "test")


def test_cost_hint_grows_with_the_budget():
    task = letters_task()
    model = model_of(task)
    assert 0 < task.cost_hint_s(model, 1.0) < 100
