"""Language modelling on tiny texts: the promises of every task, and those of text, windows, recall and weights."""

import math
import re
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from gnomon.errors import ConfigError, DataError, SchemaError, TaskError
from gnomon.search_spaces.hybrid_slm.model import LanguageModel
from gnomon.search_spaces.hybrid_slm.sizes import MixerSizes
from gnomon.search_spaces.hybrid_slm.specs import FFN, LanguageModelSpec, Operator
from gnomon.search_spaces.sequence import BEGIN, END, PAD
from gnomon.tasks.language.near_duplicates import first_of_near_duplicates
from gnomon.tasks.language.python_stdlib import PythonStdlib
from gnomon.tasks.language.recall import KEYS, Recall, RecallSequences
from gnomon.tasks.language.scoring import score_recall
from gnomon.tasks.language.task import LanguageModelling
from gnomon.tasks.language.text_files import TextFiles
from gnomon.tasks.language.text_tokenizer import FIRST, TextTokenizer
from gnomon.tasks.language.texts import TextData, TextSource
from gnomon.tasks.language.weight_normalisation import normalise_weights
from gnomon.tasks.language.windows import WindowPlan, scored_batches, scored_windows
from gnomon.testing import TaskSuite

torch.set_num_threads(1)

WHO = ("the cat", "a dog", "my aunt", "the old king", "nobody", "every bird")
DID = ("sees", "finds", "eats", "paints", "forgets", "has lost")
WHAT = ("a fish", "the red door", "seven stones", "its own tail", "the song", "a café")


CAPITALS = [FIRST + code for code in range(ord("A"), ord("Z") + 1)]


def stories(count: int, seed: int) -> tuple[str, ...]:
    rng = np.random.default_rng(seed)

    def sentence() -> str:
        return f"{WHO[rng.integers(6)]} {DID[rng.integers(6)]} {WHAT[rng.integers(6)]}.\n"

    return tuple("".join(sentence() for _ in range(rng.integers(4, 16))) for _ in range(count))


@dataclass(frozen=True)
class Stories(TextSource):
    """Small documents, one of which is there twice, and an empty one."""

    name = "stories"
    seed: int = 0
    count: int = 40

    def load(self) -> TextData:
        texts = stories(self.count, self.seed)
        texts = (*texts, texts[0].upper(), "  \n")
        return TextData(tuple(f"{i}.txt" for i in range(len(texts))), texts, f"stories {self.seed}", "none")


class Recurrent(nn.Module):
    """The least that models text: a sum of what was read, which decays by half with every token."""

    def __init__(self, vocabulary: int, width: int = 24) -> None:
        super().__init__()
        self.read, self.dropout = nn.Embedding(vocabulary, width), nn.Dropout(0.1)
        self.out = nn.Sequential(nn.Linear(2 * width, width), nn.Tanh(), nn.Linear(width, vocabulary))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.written(*self.states(tokens))

    def states(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        now, place = self.read(tokens), torch.arange(tokens.shape[1])
        return now, torch.tril(0.5 ** (place[:, None] - place).clamp(min=0).float()) @ now

    def written(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        return self.out(self.dropout(torch.cat([now, before], dim=-1)))


class Prefill(nn.Module):
    def __init__(self, model: Recurrent) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        now, sums = self.model.states(tokens)
        return self.model.written(now[:, -1], sums[:, -1]), sums[:, -1]


class Step(Prefill):
    def forward(self, tokens: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        now = self.model.read(tokens)
        return self.model.written(now, 0.5 * hidden + now), 0.5 * hidden + now


def export(model, folder):
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length")
    plans = {
        "prefill": (Prefill(model), (torch.full((2, 5), END),), ["tokens"], ({0: rows, 1: length},)),
        "step": (
            Step(model),
            (torch.full((2,), END), torch.zeros(2, 24)),
            ["tokens", "hidden"],
            ({0: rows}, {0: rows}),
        ),
    }
    for name, (module, inputs, names, shapes) in plans.items():
        torch.onnx.export(
            module,
            inputs,
            str(folder / f"{name}.onnx"),
            input_names=names,
            output_names=["logits", "next_hidden"],
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
    return folder


def attention(vocabulary: int, max_length: int, width: int = 16) -> LanguageModel:
    sizes = MixerSizes(width, heads=2, kv_heads=1, head_size=8, max_length=max_length)
    operators = (Operator("attention", sizes), Operator(FFN, sizes, ffn_width=24)) * 2
    return LanguageModel(LanguageModelSpec(vocabulary, width, operators, max_length=max_length))


RECIPE = {"batch_size": 4, "lr": 0.01, "label_smoothing": 0.0, "schedule": "cosine"}
RECALL = {"distances": [20, 40], "pairs": 3, "sequences": 6, "share": 0.3}


def stories_task(**changes) -> LanguageModelling:
    arguments = {
        "data": Stories(),
        "training": RECIPE,
        "fractions": (0.6, 0.2, 0.2),
        "length": 32,
        "last_length": 64,
        "last_share": 0.4,
        "tokens_per_epoch": 640,
        "ranges": [[0, 15], [32, 63]],
        "scored": 8,
        "scored_test": 8,
        "scored_onnx": 8,
    }
    return LanguageModelling(**{**arguments, **changes})


def seeded_model(make, task):
    known = task.space_arguments()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(known)


def model_of(task) -> Recurrent:
    return seeded_model(lambda known: Recurrent(known["vocabulary"]), task)


def attention_of(task) -> LanguageModel:
    return seeded_model(lambda known: attention(known["vocabulary"], known["max_length"]), task)


class TestBytes(TaskSuite):
    budget = 2.4

    @pytest.fixture
    def task(self):
        return stories_task(recall=RECALL)

    @pytest.fixture
    def other_task(self):
        return stories_task(data=Stories(seed=1), recall=RECALL)

    @pytest.fixture
    def model_factory(self, task):
        return lambda: model_of(task)

    def exported(self, task, model, folder):
        return export(model, folder)


class TestSubwordsWithNormalisedWeights(TaskSuite):
    budget = 2.0

    @pytest.fixture
    def task(self):
        return stories_task(vocabulary_size=300, weight_normalisation=True, training={**RECIPE, "ema_decay": 0.9})

    @pytest.fixture
    def model_factory(self, task):
        return lambda: attention_of(task)

    @pytest.mark.skip(reason="exported with its space's own graphs, in the tests of the space")
    def test_onnx_scores_like_torch(self):
        pass


# ---- Texts -----------------------------------------------------------------------------------------


def written(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_files_of_a_folder_and_of_a_pattern(tmp_path):
    written(tmp_path, {"b.txt": "second", "a/c.txt": "third", "a/d.md": "fourth", ".git/x.txt": "hidden"})
    everything = TextFiles(str(tmp_path)).load()
    assert everything.names == ("a/c.txt", "a/d.md", "b.txt")
    assert everything.texts == ("third", "fourth", "second")
    assert TextFiles(str(tmp_path), pattern="**/*.txt").load().names == ("a/c.txt", "b.txt")
    assert TextFiles(str(tmp_path / "**" / "*.txt")).load().names == ("a/c.txt", "b.txt")
    assert TextFiles(str(tmp_path / "b.txt")).load().names == ("b.txt",)
    assert TextFiles(str(tmp_path)).load().content_hash() == everything.content_hash()


def test_a_size_limit_samples_files_and_grows(tmp_path):
    written(tmp_path, {f"{i}.txt": "x" * 100 for i in range(20)})
    small, large = (set(TextFiles(str(tmp_path), max_bytes=n).load().names) for n in (500, 1000))
    assert (len(small), len(large)) == (5, 10)
    assert small < large
    with pytest.raises(DataError, match="max_bytes=50"):
        TextFiles(str(tmp_path), max_bytes=50).load()


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda folder: TextFiles(), ConfigError, "task.data.path"),
        (lambda folder: TextFiles(str(folder / "nowhere")), DataError, "nowhere"),
        (lambda folder: TextFiles(str(folder)), DataError, r"picture\.png"),
        (lambda folder: TextFiles(str(folder), max_bytes=0), ConfigError, "task.data.max_bytes"),
    ],
)
def test_wrong_files_are_named(tmp_path, make, error, says):
    written(tmp_path, {"picture.png": b"\x89PNG\xff"})
    with pytest.raises(error, match=says):
        make(tmp_path).load()


def test_python_is_a_corpus_that_repeats_itself():
    corpus = PythonStdlib(max_bytes=300_000, tests=False)
    first, again = corpus.load(), corpus.load()
    assert first.content_hash() == again.content_hash()
    assert 100_000 < sum(len(text.encode()) for text in first.texts) <= 300_000
    assert any(name.endswith(".py") for name in first.names)
    assert not any("test/" in name for name in first.names)
    assert "PSF" in first.licence
    with pytest.raises(ConfigError, match="max_bytes"):
        PythonStdlib(max_bytes=0).load()


def test_near_duplicates_are_found_and_others_are_not():
    texts = list(stories(12, seed=3))
    changed = texts[4].replace("cat", "CAT").replace("\n", "\n\n  ") + "\n# 3 more words\n"
    assert first_of_near_duplicates([*texts, changed, "1 2 3", "4  5 6"]) == [*range(12), 13]


def test_documents_stay_in_their_split_whatever_else_there_is():
    small, large = stories_task(data=Stories(count=30)), stories_task(data=Stories(count=40))
    assert set(small.example_keys("test")) <= set(large.example_keys("test"))
    assert small.data.near_duplicates == large.data.near_duplicates == 2
    with pytest.raises(DataError, match="too few different files"):
        _ = stories_task(data=Stories(count=1)).data


# ---- Tokens ----------------------------------------------------------------------------------------

TEXT = "the cat — öffne\r\n\t  </s> <pad> 3.14 e\u0301\u00e9 🐈"


@pytest.mark.parametrize("size", [None, 300])
def test_tokenizers_lose_nothing(size, tmp_path):
    tokenizer = TextTokenizer.trained(stories(20, seed=0), size)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert tokenizer.byte_lengths[tokenizer.encode(TEXT)].sum() == len(TEXT.encode())
    assert min(tokenizer.encode(TEXT)) >= FIRST
    assert len(tokenizer.byte_lengths) == tokenizer.size == (size or 260)
    assert tokenizer.decode([BEGIN, *tokenizer.encode("one"), END, *tokenizer.encode("two")]) == "one"
    (tmp_path / TextTokenizer.FILE).write_text(tokenizer.to_text(), encoding="utf-8")
    again = TextTokenizer.of_folder(tmp_path)
    assert (again.kind, again.digest()) == (tokenizer.kind, tokenizer.digest())
    assert again.encode(TEXT) == tokenizer.encode(TEXT)


def test_damaged_tokenizers_are_refused(tmp_path):
    with pytest.raises(SchemaError, match="text_tokenizer"):
        TextTokenizer.of_folder(tmp_path)
    for text in ("{", "[]", '{"schema": "other/1"}', '{"schema": "gnomon.text_tokenizer/1", "kind": "bpe"}'):
        with pytest.raises(SchemaError):
            TextTokenizer.from_text(text)


def test_the_task_gives_its_tokenizer_to_models():
    task = stories_task(vocabulary_size=300)
    again = TextTokenizer.from_text(task.assets()[TextTokenizer.FILE])
    assert again.digest() == task.preprocessing["digest"]
    assert task.space_arguments() == {"vocabulary": 300, "max_length": 64, "context": 64}


# ---- Windows ---------------------------------------------------------------------------------------


def test_scored_windows_are_every_token_once():
    documents = [np.arange(5, 5 + n, dtype=np.int32) for n in (2, 9, 33)]
    windows = scored_windows(documents, 8, None)
    assert [len(window) - 1 for window in windows] == [1, 8, 8, 8, 8, 8]
    batches = list(scored_batches(windows, tokens=16))
    assert sum(int(batch.mask.sum()) for batch in batches) == sum(len(ids) - 1 for ids in documents)
    assert max(batch.inputs.numel() for batch in batches) <= 16
    for batch in batches:
        assert (batch.targets[:, :-1] == batch.inputs[:, 1:]).all()
    assert len(scored_windows(documents, 8, 3)) == 3


def test_a_batch_has_one_window_at_least():
    (first, second) = scored_batches([np.arange(5, 70)] * 2, tokens=16)
    assert first.inputs.shape == second.inputs.shape == (1, 64)


def test_batches_depend_on_seed_and_epoch_only():
    data = stories_task(recall=RECALL).training_data()

    def epoch(seed, number):
        return [(batch.inputs.tolist(), batch.targets.tolist()) for batch in data.batches(seed, number)]

    assert epoch(0, 0) == epoch(0, 0)
    assert epoch(0, 0) != epoch(0, 1)
    assert epoch(0, 0) != epoch(1, 0)
    assert len(epoch(0, 0)) == data.batches_per_epoch == 5


def test_the_last_steps_have_longer_windows_and_as_many_tokens():
    data = stories_task().training_data().for_steps(10)
    shapes = [tuple(batch.inputs.shape) for number in range(2) for batch in data.batches(0, number)]
    assert shapes == [(4, 32)] * 6 + [(2, 64)] * 4
    unknown = stories_task().training_data()
    assert {tuple(batch.inputs.shape) for batch in unknown.batches(0, 1)} == {(4, 32)}


def test_training_sees_the_longer_windows():
    task, seen = stories_task(), []
    model = model_of(task)
    model.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]) if module.training else None)
    task.train(model, 2, seed=0)
    assert seen == [32] * 6 + [64] * 4


def test_parts_of_a_batch_are_the_batch():
    data = stories_task(recall=RECALL).training_data()
    batch = next(iter(data.batches(0, 0)))
    parts = [data.part(batch, i, 3) for i in range(3)]
    assert sorted(row for part in parts for row in part.targets.tolist()) == sorted(batch.targets.tolist())
    with pytest.raises(TaskError, match="processes=5"):
        data.part(batch, 0, 5)


# ---- Scores ----------------------------------------------------------------------------------------


class Uniform(nn.Module):
    """Knows nothing."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(*tokens.shape, -1)


@pytest.mark.parametrize("size", [None, 300])
def test_bits_per_byte_of_a_model_that_knows_nothing(size):
    task = stories_task(vocabulary_size=size, scored_test=None)
    scores = task.score(Uniform(task.tokenizer.size), "test")
    documents = task.data.of_split("test")
    tokens, text = sum(len(ids) - 1 for ids in documents), task.data.split_bytes()["test"]
    assert scores["loss"] == pytest.approx(math.log(task.tokenizer.size), rel=1e-6)
    assert scores["bits_per_byte"] == pytest.approx(math.log2(task.tokenizer.size) * tokens / text, rel=1e-6)
    assert scores["likelihood_per_byte"] == pytest.approx(2 ** -scores["bits_per_byte"])


def test_ranges_of_positions_are_scored_apart():
    class Late(Uniform):
        """Knows the truth (a newline) from position 32 on."""

        def forward(self, tokens):
            known = torch.arange(tokens.shape[1]) >= 32
            return super().forward(tokens) + 50.0 * known[:, None] * nn.functional.one_hot(torch.tensor(14), 260)

    task = stories_task(data=Lines())
    scores = task.score(Late(260), "test")
    assert scores["bits_per_byte_0_15"] == pytest.approx(math.log2(260), rel=1e-6)
    assert scores["bits_per_byte_32_63"] == pytest.approx(0.0, abs=1e-6)
    assert scores["likelihood_per_byte_32_63"] == pytest.approx(1.0, abs=1e-6)
    assert 0 < scores["bits_per_byte"] < math.log2(260)


@dataclass(frozen=True)
class Lines(TextSource):
    """A word, then empty lines; the end is at position 19 of the second window."""

    name = "lines"

    def load(self) -> TextData:
        texts = tuple(f"w{chr(97 + i)}" + "\n" * 81 for i in range(24))
        return TextData(tuple(map(str, range(24))), texts, "lines")


def test_quality_can_be_that_of_a_range():
    task = stories_task(metric="likelihood_per_byte_32_63")
    evaluation = task.train(model_of(task), 1, seed=0)
    assert evaluation.quality == 2 ** -evaluation.metrics["bits_per_byte_32_63"]


def test_a_model_learns():
    task = stories_task(tokens_per_epoch=2560, recall=RECALL)
    model = model_of(task)
    before = task.score(model, "test")
    evaluation = task.train(model, 10, seed=0)
    after = task.score(model, "test")
    assert after["bits_per_byte"] < 0.6 * before["bits_per_byte"]
    assert evaluation.curve[-1] > evaluation.curve[0]
    assert set(after) - set(evaluation.metrics) == {"recall", "recall_20", "recall_40"}


# ---- Recall ----------------------------------------------------------------------------------------


def test_recall_beyond_the_text_of_a_split_is_refused_before_training():
    task = stories_task(recall={"distances": [20, 10**6]})
    with pytest.raises(DataError, match=r"task\.recall\.distances=1000000: too little text"):
        task.training_data()


@pytest.fixture(scope="module")
def recalled():
    task = stories_task(recall=RECALL)
    return RecallSequences(task.recall, task.tokenizer), task.data.stream("test"), task.tokenizer


def test_recall_asks_for_values_at_the_distance(recalled):
    made, text, tokenizer = recalled
    rows, answers = made.scored(text, 40, seed=1)
    assert rows.shape == answers.shape == (6, made.recall.length(40))
    assert (rows[:, 0] == BEGIN).all()
    assert (answers.sum(1) == 3).all()
    for row, flags in zip(rows, answers, strict=True):
        block = made.recall.block(3)
        given, asked = (
            re.findall("[\\x01-\\x1f][A-Z]", tokenizer.decode(part)) for part in (row[1 : 1 + block], row[-block:])
        )
        assert len(given) == 3
        assert sorted(given) == sorted(asked)
        assert [tokenizer.decode([token]) for token in row[flags]] == [pair[-1] for pair in asked]
        assert flags.nonzero()[0][0] == 1 + block + 40 + 1
    assert (made.scored(text, 40, seed=1)[0] == rows).all()
    assert (made.scored(text, 40, seed=2)[0] != rows).any()


class Copies(nn.Module):
    """Writes the capital that followed the last time when there was the same token: perfect recall of short keys."""

    def __init__(self, vocabulary: int, window: int) -> None:
        super().__init__()
        self.vocabulary, self.window, self.none = vocabulary, window, nn.Parameter(torch.zeros(()))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*tokens.shape, self.vocabulary) + self.none
        for row, ids in enumerate(tokens.tolist()):
            for i in range(1, len(ids)):
                earlier = [j for j in range(max(0, i - self.window), i) if ids[j] == ids[i] and ids[j + 1] in CAPITALS]
                if earlier:
                    logits[row, i, ids[earlier[-1] + 1]] = 1.0
        return logits


def test_recall_tells_who_sees_far_from_who_does_not(recalled):
    made, text, tokenizer = recalled
    for distance in (20, 40):
        rows, answers = made.scored(text, distance, seed=1)
        assert score_recall(Copies(tokenizer.size, 1000), rows, answers, tokenizer.size) == 1.0
        assert score_recall(Copies(tokenizer.size, distance), rows, answers, tokenizer.size) == 0.0


def test_training_mixes_recall_in_by_its_share():
    task = stories_task(recall={**RECALL, "share": 0.25}, tokens_per_epoch=128 * 8)
    batches = list(task.training_data().batches(0, 0))
    recalling = [(batch.targets == PAD).any(1) for batch in batches]
    assert sum(int(rows.sum()) for rows in recalling) == 8
    # Keys and values are given, text and answers are learned.
    inputs, targets = batches[0].inputs[recalling[0]], batches[0].targets[recalling[0]]
    keys = torch.tensor([FIRST + ord(key) for key in KEYS])
    assert torch.isin(inputs, keys).any()
    assert not torch.isin(targets, keys).any()
    learned = targets[:, :-1][torch.isin(inputs[:, 1:], torch.tensor(CAPITALS))].tolist()
    assert PAD in learned
    assert set(learned) - {PAD} <= set(CAPITALS)
    assert len(set(learned)) > 1


def test_recall_can_be_the_quality():
    task = stories_task(recall=RECALL, metric="recall")
    assert 0.0 <= task.train(model_of(task), 1, seed=0).quality <= 1.0


# ---- Weight normalisation ----------------------------------------------------------------------------


def test_weights_have_unit_length_after_every_step():
    task = stories_task(weight_normalisation=True)
    model = attention_of(task)
    task.train(model, 1, seed=0)
    roles = model.roles()
    assert set(roles.values()) == {"reads", "writes"}
    for name, role in roles.items():
        lengths = model.get_parameter(name).norm(dim=1 if role == "reads" else 0)
        assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5), name
    free = attention_of(task)
    stories_task().train(free, 1, seed=0)
    assert not torch.allclose(free.get_parameter("branches.0.body.q.weight").norm(dim=1), torch.ones(16), atol=1e-3)


def test_zeros_stay_zeros():
    model = attention(260, 32)
    with torch.no_grad():
        model.get_parameter("branches.0.body.q.weight")[0] = 0.0
    normalise_weights(model)
    assert (model.get_parameter("branches.0.body.q.weight")[0] == 0.0).all()


def test_models_without_roles_cannot_be_normalised():
    task = stories_task(weight_normalisation=True)
    with pytest.raises(TaskError, match="weight_normalisation"):
        task.train(model_of(task), 1, seed=0)


# ---- Mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"data": "books"}, "task.data"),
        ({"training": {"flip": True}}, "task.training.flip"),
        ({"metric": "accuracy"}, "task.metric"),
        ({"metric": "recall"}, "task.metric"),
        ({"metric": "likelihood_per_byte_512_1023"}, "task.metric"),
        ({"vocabulary_size": 100}, "task.vocabulary_size"),
        ({"length": 1, "last_length": None}, "task.length"),
        ({"last_length": 48}, "task.last_length"),
        ({"last_length": 256}, "task.last_length"),
        ({"last_share": 1.5}, "task.last_share"),
        ({"tokens_per_epoch": 100}, "task.tokens_per_epoch"),
        ({"ranges": [[10, 64]]}, "task.ranges"),
        ({"ranges": [[10]]}, "task.ranges"),
        ({"scored": 0}, "task.scored"),
        ({"recall": {"pairs": 3}}, "task.recall"),
        ({"recall": {**RECALL, "colour": 1}}, "task.recall"),
        ({"recall": {**RECALL, "pairs": "many"}}, "task.recall"),
        ({"recall": {**RECALL, "pairs": 27}}, "task.recall.pairs"),
        ({"recall": {**RECALL, "distances": []}}, "task.recall.distances"),
        ({"recall": {**RECALL, "share": 2.0}}, "task.recall.share"),
    ],
)
def test_wrong_arguments_are_named(changes, field):
    with pytest.raises(ConfigError, match=field):
        _ = stories_task(**changes).data


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"length": 8192, "last_length": None, "tokens_per_epoch": 32768, "ranges": []}, "task.length"),
        ({"length": 600, "last_length": None, "tokens_per_epoch": 2400, "ranges": [[590, 599]]}, "task.ranges"),
    ],
)
def test_data_that_are_too_short_are_named_before_training(changes, field):
    with pytest.raises(DataError, match=field):
        stories_task(**changes).training_data()


def test_a_model_of_another_vocabulary_is_refused():
    task = stories_task()
    with pytest.raises(TaskError, match="one logit per token"):
        task.train(Recurrent(300), 1, seed=0)
    with pytest.raises(TaskError, match="cannot run"):
        task.score(Recurrent(10), "test")


# ---- Exported models -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export(model_of(stories_task()), tmp_path_factory.mktemp("model"))


def test_exported_models_are_scored_on_fewer_windows_of_which_modules_can_be_asked(folder):
    task = stories_task(recall=RECALL, scored_onnx=3)
    model = model_of(task)
    found, same = task.score(folder, "test"), task.score_as_exported(model, "test")
    assert found == pytest.approx(same, abs=1e-5)
    assert found["loss"] != pytest.approx(task.score(model, "test")["loss"], abs=1e-6)


def test_folders_that_are_not_a_model_are_refused(folder, tmp_path):
    task, copy = stories_task(), shutil.copytree(folder, tmp_path / "copy")
    shutil.copyfile(folder / "prefill.onnx", copy / "step.onnx")
    with pytest.raises(TaskError, match="do not fit together"):
        task.score(copy, "test")
    (copy / "step.onnx").write_bytes(b"not a model")
    with pytest.raises(TaskError, match="cannot load"):
        task.score(copy, "test")
    (copy / "step.onnx").unlink()
    with pytest.raises(TaskError, match=r"step\.onnx"):
        task.score(copy, "test")
    with pytest.raises(TaskError, match="one logit per token"):
        stories_task(vocabulary_size=270).score(folder, "test")


def test_cost_hint():
    task = stories_task()
    assert 0 < task.cost_hint_s(model_of(task), 1.0) < 100


def test_settings_of_recall_are_json():
    recall = Recall((20, 40))
    assert Recall.of(recall.to_dict()) == recall
    assert Recall.of(None) is None


def test_a_plan_keeps_the_tokens_of_a_step():
    plan = WindowPlan(32, 6, 192 * 10, last_length=64, last_share=0.25)
    shapes = [plan.shape(step, 20) for step in range(20)]
    assert shapes == [(6, 32)] * 15 + [(3, 64)] * 5
    assert plan.shape(20, 20) == (6, 32)
