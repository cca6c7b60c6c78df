"""Greedy decoding and beam search against enumeration on a model whose every probability is known."""

import itertools

import pytest
import torch

from gnomon.errors import ConfigError
from gnomon.search_spaces.sequence import BEGIN, END, PAD
from gnomon.tasks.sequences.decoding import beam_search, decode, greedy

VOCABULARY = 6


class Table:
    """Logits that depend on the source's first token and on all tokens so far."""

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.steps = seed, 0

    def start(self, source):
        return [[int(row[0])] for row in source]

    def step(self, tokens, state):
        self.steps += 1
        state = [[*row, int(token)] for row, token in zip(state, tokens, strict=True)]
        return torch.stack([self.logits(row) for row in state]), state

    def reorder(self, state, rows):
        return [list(state[int(i)]) for i in rows]

    def logits(self, row):
        number = self.seed
        for token in row:
            number = number * 31 + token + 1
        return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(number)) * 2

    def log_probability(self, first, sentence):
        row, total = [first, BEGIN], 0.0
        for token in sentence:
            logits = self.logits(row)
            logits[[PAD, BEGIN]] = -torch.inf
            total += float(torch.log_softmax(logits, dim=0)[token])
            row.append(token)
        return total


def every_sentence(longest):
    inner = [token for token in range(VOCABULARY) if token not in (PAD, BEGIN, END)]
    for length in range(1, longest + 1):
        for words in itertools.product(inner, repeat=length - 1):
            yield [*words, END]
    yield from (list(words) for words in itertools.product(inner, repeat=longest))


def best_sentence(model, first, longest, penalty):
    def score(sentence):
        return model.log_probability(first, sentence) / ((5 + len(sentence)) / 6) ** penalty

    return max(every_sentence(longest), key=score)


SOURCES = torch.tensor([[4, END], [5, END], [3, END]])


@pytest.mark.parametrize("penalty", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_beam_as_wide_as_all_sentences_finds_the_best(seed, penalty):
    model = Table(seed)
    found = beam_search(model, SOURCES, 4, beam=64, length_penalty=penalty)
    assert found == [best_sentence(model, int(row[0]), 4, penalty) for row in SOURCES]


@pytest.mark.parametrize("seed", range(6))
def test_greedy_takes_the_likeliest_token_each_time(seed):
    model = Table(seed)
    for row, found in zip(SOURCES, greedy(model, SOURCES, 5), strict=True):
        known = [int(row[0]), BEGIN]
        for token in found:
            logits = model.logits(known)
            logits[[PAD, BEGIN]] = -torch.inf
            assert token == int(logits.argmax())
            known.append(token)
        assert len(found) == 5 or found[-1] == END


@pytest.mark.parametrize("seed", range(4))
def test_one_beam_without_penalty_is_greedy_unless_an_earlier_end_was_likelier(seed):
    model = Table(seed)
    for row, one, first in zip(SOURCES, beam_search(model, SOURCES, 5, 1, 0.0), greedy(model, SOURCES, 5), strict=True):
        likelier = model.log_probability(int(row[0]), one) - model.log_probability(int(row[0]), first)
        assert one == first or likelier > 0


@pytest.mark.parametrize("beam", [1, 2, 3])
def test_sentences_of_a_batch_do_not_matter_to_each_other(beam):
    model = Table(3)
    together = decode(model, SOURCES, 6, beam=beam)
    assert together == [decode(model, row[None], 6, beam=beam)[0] for row in SOURCES]


def test_a_wider_beam_is_never_worse_here_and_stops_when_decided():
    model = Table(1)
    scores = []
    for beam in (1, 4, 64):
        found = beam_search(model, SOURCES, 4, beam, length_penalty=0.0)
        scores.append(sum(model.log_probability(int(r[0]), s) for r, s in zip(SOURCES, found, strict=True)))
    assert scores == sorted(scores)


class Ends(Table):
    """Certain that a sentence is over after two tokens."""

    def logits(self, row):
        logits = torch.full((VOCABULARY,), -20.0)
        logits[END if len(row) > 2 else 4] = 20.0
        return logits


@pytest.mark.parametrize("beam", [1, 3])
def test_decoding_stops_when_nothing_can_change(beam):
    model = Ends()
    assert decode(model, SOURCES, 50, beam=beam) == [[4, END]] * 3
    assert model.steps == 2


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"max_tokens": 0}, "max_tokens"), ({"beam": 0}, "beam"), ({"beam": 2, "length_penalty": -1}, "length_penalty")],
)
def test_settings_out_of_range_are_named(arguments, field):
    with pytest.raises(ConfigError, match=field):
        decode(Table(), SOURCES, **{"max_tokens": 5, **arguments})
