"""A trained language model with replacements of its mixers."""

import numpy as np
import pytest
import torch

from gnomon.errors import ConfigError, SpaceError
from gnomon.search.setup import check_given
from gnomon.search_spaces import Workload
from gnomon.search_spaces.hybrid_slm.conversion import take_projections
from gnomon.search_spaces.hybrid_slm.mixers import mixer_class
from gnomon.search_spaces.hybrid_slm.model import LanguageModel
from gnomon.search_spaces.hybrid_slm.replacement import MixerReplacement
from gnomon.search_spaces.hybrid_slm.saved import save_language_model
from gnomon.search_spaces.hybrid_slm.sizes import MixerSizes
from gnomon.search_spaces.hybrid_slm.specs import FFN, LanguageModelSpec, Operator
from gnomon.testing import ElasticSuite, LanguageSpaceSuite

torch.set_num_threads(1)

VOCABULARY, LENGTH = 20, 48
SIZES = MixerSizes(width=16, heads=2, kv_heads=1, head_size=8, window=16, max_length=LENGTH + 6)
MIXERS = [{"kind": "sliding_window", "window": 4}, "deltanet"]


def saved_parent(folder, **changes):
    """Attention thrice, DeltaNet once."""
    attention, linear, ffn = Operator("attention", SIZES), Operator("deltanet", SIZES), Operator(FFN, SIZES, 24)
    operators = (attention, ffn, attention, ffn, ffn, linear, attention, ffn)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = LanguageModel(LanguageModelSpec(VOCABULARY, 16, operators, max_length=LENGTH, **changes)).eval()
    save_language_model(model, folder)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parent")
    saved_parent(folder)
    return folder


@pytest.fixture(scope="module")
def space(folder):
    return MixerReplacement(folder, MIXERS, context=40)


def tokens(batch=2, length=30):
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(0))


class TestSpace(LanguageSpaceSuite):
    models = 3

    @pytest.fixture
    def space(self, space):
        return space

    @pytest.mark.slow
    def test_quick_export_answers_like_torch(self, space):
        super().test_quick_export_answers_like_torch(space)


class TestShared(ElasticSuite):
    networks = 3

    @pytest.fixture
    def space(self, space):
        return space

    def inputs(self, space, batch):
        return (tokens(batch),)


# ---- What is the parent's -------------------------------------------------------------------------


@torch.no_grad()
def test_the_kept_network_is_the_parent(space):
    x = tokens()
    expected = space.given()(x)
    assert next(iter(space.named)) == "parent"
    assert torch.equal(space.initial(space.named["parent"])(x), expected)
    assert torch.equal(space.elastic()(x), expected)
    assert not torch.equal(space.initial(space.named["all_deltanet"])(x), expected)


def test_only_mixers_of_the_kind_are_decided(space):
    assert [d.name for d in space.decisions] == ["mixer1", "mixer2", "mixer4"]
    assert space.decisions[0].choices == ("keep", "sliding_window_window4", "deltanet")
    spec = space.spec_of({"mixer1": "deltanet", "mixer2": "keep", "mixer4": "sliding_window_window4"})
    kinds = [operator.kind for operator in spec.operators]
    assert kinds == ["deltanet", FFN, "attention", FFN, FFN, "deltanet", "sliding_window", FFN]
    assert spec.operators[6].sizes.window == 4


@torch.no_grad()
def test_a_window_as_long_as_the_text_is_attention(folder):
    space = MixerReplacement(folder, [{"kind": "sliding_window", "window": LENGTH}])
    x = tokens()
    torch.testing.assert_close(space.initial(space.named["all_sliding_window_window48"])(x), space.given()(x))


def test_training_changes_mixers_only(space, folder):
    config = {"mixer1": "deltanet", "mixer2": "keep", "mixer4": "sliding_window_window4"}
    model = space.initial(config)
    trained = {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"0", "2", "5", "6"}
    assert not model.branches[0].norm.weight.requires_grad
    assert not model.embedding.weight.requires_grad
    whole = MixerReplacement(folder, MIXERS, trained="all").initial(config)
    assert all(p.requires_grad for p in whole.parameters())


def test_routers_and_meta_tokens_are_taken_over(tmp_path):
    parent = saved_parent(tmp_path, meta_tokens=3, skips=True, exit_after=2, tied=False)
    space = MixerReplacement(tmp_path, MIXERS)
    model = space.initial(space.named["all_deltanet"])
    assert torch.equal(model.meta, parent.meta)
    assert torch.equal(model.branches[2].router.weight, parent.branches[2].router.weight)
    assert torch.equal(model.exit_norm.weight, parent.exit_norm.weight)
    assert torch.equal(model.head.weight, parent.head.weight)
    with torch.no_grad():
        x = tokens()
        assert torch.equal(space.initial(space.named["parent"])(x), parent(x))


# ---- What replacements begin with -------------------------------------------------------------------


def mixer(kind, **changes):
    return mixer_class(kind)(MixerSizes(**{**SIZES.to_dict(), **changes}))


def test_projections_are_copied_and_shared_heads_repeated():
    source, target = mixer("attention", kv_heads=1), mixer("deltanet")
    assert set(take_projections(target, source)) == {"queries", "keys", "values", "out"}
    queries, keys, values = target.inputs.weight[:48].chunk(3)
    assert torch.equal(queries, source.q.weight)
    assert torch.equal(keys, torch.cat([source.k.weight] * 2))
    assert torch.equal(values, torch.cat([source.v.weight] * 2))
    assert torch.equal(target.out.weight, source.out.weight)


def test_fewer_heads_of_keys_are_means():
    source, target = mixer("attention", kv_heads=2), mixer("attention", kv_heads=1)
    take_projections(target, source)
    torch.testing.assert_close(target.k.weight, (source.k.weight[:8] + source.k.weight[8:]) / 2)


def test_other_heads_take_nothing():
    source, target = mixer("attention"), mixer("attention", heads=4, head_size=4)
    before = target.q.weight.clone()
    assert take_projections(target, source) == ()
    assert torch.equal(target.q.weight, before)


# ---- Latency ------------------------------------------------------------------------------------------


def test_costs_at_a_long_context_are_those_of_attention(folder):
    rows = [np.array([0, 0, 0]), np.array([2, 0, 0]), np.array([2, 2, 2])]
    costs = MixerReplacement(folder, MIXERS, context=40).costs(np.array(rows, dtype=np.int8))
    short = MixerReplacement(folder, MIXERS, context=2).costs(np.array(rows, dtype=np.int8))
    assert costs.cio[0] - short.cio[0] == pytest.approx(
        3 * (costs.cio[1] - costs.cio[0] - short.cio[1] + short.cio[0]) * -1
    )
    assert costs.cio[2] == short.cio[2]


# ---- What is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": ""}, "names no trained model"),
        ({"model": "nowhere"}, "no language model"),
        ({"mixers": []}, "mixers="),
        ({"mixers": ["deltanet", "deltanet"]}, "different mixers"),
        ({"mixers": ["no_such"]}, "no such mixer"),
        ({"mixers": ["attention"]}, "it would replace"),
        ({"mixers": [{"window": 3}]}, "names no mixer"),
        ({"mixers": [{"kind": "sliding_window", "depth": 3}]}, "not a size"),
        ({"mixers": [{"kind": "attention", "kv_heads": 3}]}, "does not divide"),
        ({"replaced": "gla"}, "none of this kind"),
        ({"trained": "norms"}, "trained="),
        ({"context": LENGTH + 1}, "context="),
    ],
)
def test_bad_arguments_are_refused(folder, arguments, message):
    with pytest.raises(SpaceError, match=message):
        MixerReplacement(**{"model": folder, "mixers": MIXERS, **arguments})


def test_a_workload_beyond_the_parents_length_is_refused(space):
    with pytest.raises(SpaceError, match="longer"):
        space.deployable(space.named["parent"], Workload((1,), context=LENGTH + 1, phase="step"))


class Tokens:
    """All that is asked of a task."""

    def __init__(self, text, length=LENGTH):
        self.text, self.length = text, length

    def assets(self):
        return {"text_tokenizer.json": self.text}

    def space_arguments(self):
        return {"max_length": self.length}


def test_a_task_longer_than_the_parent_is_refused(space):
    check_given(space, Tokens("{}"))
    with pytest.raises(ConfigError, match=rf"space\.model=.*its max_length is {LENGTH}, the task's {LENGTH + 1}"):
        check_given(space, Tokens("{}", LENGTH + 1))


def test_a_task_must_have_the_parents_tokenizer(tmp_path):
    saved_parent(tmp_path)
    space = MixerReplacement(tmp_path, MIXERS, context=40)
    assert space.given_assets() == {}
    check_given(space, Tokens('{"kind": "bytes"}'))
    (tmp_path / "text_tokenizer.json").write_text('{"kind": "bytes"}')
    check_given(space, Tokens('{ "kind":"bytes" }'))
    with pytest.raises(ConfigError, match=r"space\.model=.*another text_tokenizer\.json than the task's"):
        check_given(space, Tokens('{"kind": "words"}'))
