from __future__ import annotations

import numpy as np
import pytest

from gnomon.errors import SpaceError
from gnomon.search_spaces import Costs, Decision, SearchSpace, Workload
from gnomon.search_spaces.variation import distinct, first_occurrences, offspring


class Blocks(SearchSpace):
    """Blocks whose kernel matters only where the block is not skipped."""

    name = "blocks"

    def __init__(self, blocks=7):
        self.blocks = blocks
        decisions = []
        for i in range(blocks):
            decisions.append(Decision(f"op{i}", ("skip", "conv", "pool")))
            decisions.append(Decision(f"kernel{i}", (3, 5, 7, 9), {f"op{i}": ("conv", "pool")}))
        super().__init__(tuple(decisions), Workload((3, 8, 8)))

    def arguments(self):
        return {"blocks": self.blocks}

    def build(self, config):
        raise NotImplementedError

    def costs(self, genotypes):
        work = genotypes.sum(axis=1).astype(float) + 1
        return Costs(work, work, work, work)


@pytest.fixture(scope="module")
def space():
    return Blocks()


def test_children_are_canonical_distinct_and_reproducible(space):
    parents = space.sample(50, np.random.default_rng(0))
    children = offspring(space, parents, 20_000, np.random.default_rng(1))
    np.testing.assert_array_equal(children, space.canonical(children))
    assert len(np.unique(children, axis=0)) == len(children) > 1000
    np.testing.assert_array_equal(children, offspring(space, parents, 20_000, np.random.default_rng(1)))
    assert not np.array_equal(children, offspring(space, parents, 20_000, np.random.default_rng(2)))


def test_the_number_of_threads_changes_nothing(space, monkeypatch):
    from gnomon.search_spaces import chunks

    parents = space.sample(50, np.random.default_rng(0))
    many = offspring(space, parents, 100_000, np.random.default_rng(1))
    monkeypatch.setattr(chunks, "threads", lambda: 1)
    np.testing.assert_array_equal(many, offspring(space, parents, 100_000, np.random.default_rng(1)))


def test_known_rows_are_left_out(space):
    parents = space.sample(50, np.random.default_rng(0))
    children = offspring(space, parents, 2000, np.random.default_rng(1))
    known = space.algebra.hashes(children[:100])
    fewer = offspring(space, parents, 2000, np.random.default_rng(1), known=known)
    np.testing.assert_array_equal(fewer, children[100:])
    np.testing.assert_array_equal(distinct(space, children, known), children[100:])


def test_without_mutation_genes_come_from_parents(space):
    parents = np.stack([np.zeros(14), np.tile([2, 3], 7)]).astype(np.int8)
    children = offspring(space, parents, 5000, np.random.default_rng(0), mutation_rate=0.0, crossover_rate=1.0)
    ops, kernels = children[:, 0::2], children[:, 1::2]
    assert set(np.unique(ops)) == {0, 2}
    assert set(np.unique(kernels)) <= {0, 3}
    assert (kernels[ops == 0] == 0).all()


def test_tournaments_favour_the_first(space):
    parents = space.sample(1000, np.random.default_rng(0))
    parents[:, 0] = np.arange(1000) >= 500
    parents = space.canonical(parents)
    make = {"crossover_rate": 0.0, "mutation_rate": 0.0}
    children = offspring(space, parents, 200, np.random.default_rng(1), tournament=8, **make)
    assert (children[:, 0] == 0).mean() > 0.95


def test_bad_arguments(space):
    with pytest.raises(SpaceError, match="parents"):
        offspring(space, space.sample(0, np.random.default_rng(0)), 10, np.random.default_rng(0))
    with pytest.raises(SpaceError, match="crossover_rate"):
        offspring(space, space.sample(4, np.random.default_rng(0)), 10, np.random.default_rng(0), crossover_rate=1.5)


def test_first_occurrences_agree_with_unique():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**64, size=500, dtype=np.uint64)
    hashes = values[rng.integers(0, 500, size=3000)]
    expected = np.sort(np.unique(hashes, return_index=True)[1])
    np.testing.assert_array_equal(first_occurrences(hashes), expected)
    assert len(first_occurrences(hashes[:1])) == 1
    assert len(first_occurrences(hashes[:0])) == 0


def test_hashes_tell_single_genes_apart(space):
    rows = space.sample(20_000, np.random.default_rng(0))
    rows = np.unique(rows, axis=0)
    assert len(np.unique(space.algebra.hashes(rows))) == len(rows)
    # Rows that differ in two genes only, which weak hashes confuse.
    pairs = np.zeros((127 * 127, 16), dtype=np.int8)
    pairs[:, 7], pairs[:, 15] = np.divmod(np.arange(127 * 127), 127)
    hashes = space.algebra.hashes(pairs)
    assert len(np.unique(hashes)) == len(pairs)
    assert len(np.unique(hashes >> np.uint64(32))) > 0.99 * len(pairs)


@pytest.mark.parametrize("rate", [0.0, 0.01, 1 / 14, 0.5, 1.0])
def test_each_gene_mutates_at_the_given_rate(space, rate):
    rows = space.algebra.sample(20_000, np.random.default_rng(0))
    changed = space.algebra.mutate(rows, np.random.default_rng(1), rate) != rows
    tolerance = 5 * np.sqrt(rate * (1 - rate) / len(rows)) + 1e-12
    np.testing.assert_allclose(changed.mean(axis=0), rate, atol=tolerance)


def test_mutation_reaches_every_other_choice_equally(space):
    rows = np.zeros((40_000, 14), dtype=np.int8)
    mutants = space.algebra.mutate(rows, np.random.default_rng(0), 1.0)
    for gene, cardinality in enumerate(space.algebra.cardinalities):
        share = np.bincount(mutants[:, gene], minlength=cardinality) / len(rows)
        assert share[0] == 0
        np.testing.assert_allclose(share[1:], 1 / (cardinality - 1), atol=0.02)


def test_crossover_takes_half_from_each(space):
    mothers, fathers = np.zeros((9999, 14), dtype=np.int8), np.ones((9999, 14), dtype=np.int8)
    children = space.algebra.crossover(mothers, fathers, np.random.default_rng(0))
    np.testing.assert_allclose(children.mean(axis=0), 0.5, atol=0.03)
    assert abs(np.corrcoef(children.T) - np.eye(14)).max() < 0.06
