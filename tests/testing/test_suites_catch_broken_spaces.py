"""The search-space suite must fail on what it is there to catch."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from gnomon.search_spaces import AdditiveEncoding, Costs, Decision, SearchSpace, Workload
from gnomon.search_spaces.graph_costs import module_costs
from gnomon.testing import SearchSpaceSuite


class TinySpace(SearchSpace):
    """A sound space with a conditional decision: one or two convolutions."""

    name = "tiny"

    def __init__(self, filters=(2, 3, 4)):
        decisions = (
            Decision("layers", (1, 2)),
            Decision("first", tuple(filters), ordered=True),
            Decision("second", tuple(filters), active_when={"layers": (2,)}, ordered=True),
        )
        self._filters = list(filters)
        super().__init__(decisions, Workload((1, 6, 6)))

    def arguments(self):
        return {"filters": self._filters}

    def build(self, config):
        config = self.config(self.genotype(config))
        layers, channels = [], 1
        for name in ("first", "second")[: config["layers"]]:
            layers += [nn.Conv2d(channels, config[name], 3, padding=1), nn.ReLU()]
            channels = config[name]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))

    def costs(self, genotypes):
        rows = [module_costs(self.build(self.config(row)), (1, 6, 6)) for row in genotypes]
        names = ("parameters", "macs", "cio", "peak_activation_bytes")
        return Costs(*(np.array([row[name] for row in rows]) for name in names))


class TestTinySpace(SearchSpaceSuite):
    classes = 2
    population = 60

    @pytest.fixture
    def space(self):
        return TinySpace()


def failing_checks(space):
    """Names of the suite's checks that do not pass."""
    failed = []
    for name, check in inspect.getmembers(TestTinySpace(), inspect.ismethod):
        if not name.startswith("test_"):
            continue
        arguments = {"rate": 1.5} if "rate" in inspect.signature(check).parameters else {}
        try:
            check(space=space, **arguments)
        except pytest.skip.Exception:
            pass
        except Exception as error:
            failed.append((name, type(error).__name__))
        except BaseException as error:  # pytest.raises fails with an outcome that is no Exception.
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            failed.append((name, type(error).__name__))
    return {name for name, _ in failed}


def test_a_sound_space_passes():
    assert failing_checks(TinySpace()) == set()


class NotCanonical(TinySpace):
    def canonical(self, genotypes):
        return genotypes.copy()


class CanonicalInPlace(TinySpace):
    def canonical(self, genotypes):
        genotypes[:] = super().canonical(genotypes)
        return genotypes


class OverwritesActiveGenes(TinySpace):
    def canonical(self, genotypes):
        rows = super().canonical(genotypes)
        rows[rows[:, 0] == 0, 1] = 0
        return rows


class UnseededSample(TinySpace):
    def sample(self, n, rng):
        return super().sample(n, np.random.default_rng())


class OneSampleForAll(TinySpace):
    def sample(self, n, rng):
        return super().sample(n, np.random.default_rng(0))


class NeverTheLastChoice(TinySpace):
    def sample(self, n, rng):
        return np.minimum(super().sample(n, rng), 1)


class MutatesAlways(TinySpace):
    def mutate(self, genotypes, rng, rate=None):
        return super().mutate(genotypes, rng, 1.0)


class MutatesNever(TinySpace):
    def mutate(self, genotypes, rng, rate=None):
        return super().mutate(genotypes, rng, 0.0)


class MutatesOutOfRange(TinySpace):
    def mutate(self, genotypes, rng, rate=None):
        return super().mutate(genotypes, rng, rate) + np.int8(rate == 1.0)


class TakesTheMother(TinySpace):
    def crossover(self, mothers, fathers, rng):
        return mothers.copy()


class InventsGenes(TinySpace):
    def crossover(self, mothers, fathers, rng):
        return self.sample(len(mothers), rng)


class LosesADecision(TinySpace):
    def config(self, row):
        return {name: choice for name, choice in super().config(row).items() if name != "first"}


class KeysCollide(TinySpace):
    def keys(self, genotypes):
        return [key[:3] for key in super().keys(genotypes)]


class AcceptsAnything(TinySpace):
    def genotype(self, config):
        known = {d.name: d.choices[0] for d in self.decisions[:2]}
        known |= {k: v for k, v in config.items() if k in self.algebra.index and v in self.decisions[1].choices}
        return super().genotype(known)


class ForgetsArguments(TinySpace):
    def __init__(self, filters=(2, 3, 4, 5)):
        super().__init__(filters)

    def arguments(self):
        return {"filters": [2, 3]}


class NamesAnotherNetwork(TinySpace):
    @property
    def named(self):
        return {"reference": {"layers": 1, "first": 2, "second": 3}}


class CountsBiasesNot(TinySpace):
    def costs(self, genotypes):
        costs = super().costs(genotypes)
        return Costs(costs.parameters - 1, costs.macs, costs.cio, costs.peak_activation_bytes)


class CountsFlops(TinySpace):
    def costs(self, genotypes):
        costs = super().costs(genotypes)
        return Costs(costs.parameters, 2 * costs.macs, costs.cio, costs.peak_activation_bytes)


class ForgetsMemory(TinySpace):
    def costs(self, genotypes):
        costs = super().costs(genotypes)
        return Costs(costs.parameters, costs.macs, costs.cio, 0 * costs.peak_activation_bytes)


class NamesTooFewFeatures(TinySpace):
    @property
    def feature_names(self):
        return super().feature_names[:-1]


class FeaturesOfThePopulation(TinySpace):
    def encode(self, genotypes):
        features = super().encode(genotypes)
        return features - features.mean(axis=0)


class InfiniteFeatures(TinySpace):
    def encode(self, genotypes):
        return super().encode(genotypes) / np.float32(0)


class OtherTables(TinySpace):
    def additive_encoding(self):
        table = np.eye(2, 8, dtype=np.float32)
        return AdditiveEncoding(((0,),), ((2,),), (table,), np.zeros(8, dtype=np.float32))


class WrongOutputs(TinySpace):
    def build(self, config):
        return nn.Sequential(*super().build(config)[:-1], nn.Linear(4, 3)) if config["first"] == 4 else nn.Flatten()


class BatchDependent(TinySpace):
    def build(self, config):
        class OverBatch(nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def forward(self, x):
                y = self.inner(x)
                return y - y.mean(0)

        return OverBatch(super().build(config))


class UnseededWeights(TinySpace):
    def build(self, config):
        with torch.random.fork_rng():
            torch.seed()
            return super().build(config)


class ConstantWeights(TinySpace):
    def build(self, config):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return super().build(config)


class DeadModel(TinySpace):
    def build(self, config):
        model = super().build(config)
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        return model


class OneIdentityForAll(TinySpace):
    def deployable(self, config, workload=None):
        return super().deployable({"layers": 1, "first": 2}, workload)


CAUGHT_BY = {
    NotCanonical: "test_inactive_genes_are_zero",
    CanonicalInPlace: "test_canonical_is_idempotent",
    OverwritesActiveGenes: "test_canonical_changes_inactive_genes_only",
    UnseededSample: "test_sample_is_deterministic",
    OneSampleForAll: "test_sample_is_deterministic",
    NeverTheLastChoice: "test_sample_reaches_every_choice",
    MutatesAlways: "test_mutation_at_rate_zero_is_identity",
    MutatesNever: "test_mutation_changes_what_it_is_asked_to",
    MutatesOutOfRange: "test_mutants_are_valid_and_canonical",
    TakesTheMother: "test_crossover_takes_each_gene_from_a_parent",
    InventsGenes: "test_crossover_takes_each_gene_from_a_parent",
    LosesADecision: "test_config_survives_json",
    KeysCollide: "test_equal_rows_are_equal_configs_and_keys",
    AcceptsAnything: "test_bad_configs_are_refused",
    ForgetsArguments: "test_spec_makes_an_equal_space",
    NamesAnotherNetwork: "test_named_networks_are_in_the_space",
    CountsBiasesNot: "test_parameters_equal_the_modules",
    CountsFlops: "test_macs_equal_torchs_flop_counter",
    ForgetsMemory: "test_costs_equal_an_independent_count",
    NamesTooFewFeatures: "test_features_are_finite_and_named",
    FeaturesOfThePopulation: "test_features_depend_on_the_row_alone",
    InfiniteFeatures: "test_features_are_finite_and_named",
    OtherTables: "test_additive_encoding_equals_encode",
    WrongOutputs: "test_models_run_at_two_batch_sizes",
    BatchDependent: "test_models_run_at_two_batch_sizes",
    UnseededWeights: "test_models_are_deterministic_under_a_seed",
    ConstantWeights: "test_models_are_deterministic_under_a_seed",
    DeadModel: "test_models_learn",
    OneIdentityForAll: "test_deployable_carries_its_identity",
}


@pytest.mark.parametrize("broken", CAUGHT_BY, ids=lambda broken: broken.__name__)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_broken_spaces_fail(broken):
    check = getattr(TestTinySpace(), CAUGHT_BY[broken])
    with pytest.raises((Exception, pytest.fail.Exception)):
        check(space=broken())
