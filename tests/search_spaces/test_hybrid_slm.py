"""Spaces of hybrid language models: their contract, what their choices mean, and what is refused."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from gnomon.devices.answers import random_input
from gnomon.errors import SpaceError
from gnomon.search_spaces.hybrid_slm.adaptive import adaptive_loss, forward_all, generate_with_exit
from gnomon.search_spaces.hybrid_slm.free import PUBLISHED, HybridSLMFree
from gnomon.search_spaces.hybrid_slm.interface import interface
from gnomon.search_spaces.hybrid_slm.model import LanguageModel
from gnomon.search_spaces.hybrid_slm.saved import load_language_model, save_language_model
from gnomon.search_spaces.hybrid_slm.space import HybridSLM
from gnomon.testing import LanguageSpaceSuite

SMALL = {
    "vocabulary": 20,
    "mixers": ["attention", "gla"],
    "widths": [16, 24],
    "head_sizes": [4],
    "kv_heads": [1, 2],
    "max_length": 40,
    "context": 12,
    "prompt_length": 5,
    "generated_length": 4,
}
DEFAULT_MIXERS = ["attention", "mamba2", "deltanet"]


class TestTemplate(LanguageSpaceSuite):
    models = 2

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return HybridSLM(**SMALL, blocks=[1, 2], ratios=["0:1", "1:1"], ffns=[0, 1], max_operators=10)


class TestFree(LanguageSpaceSuite):
    models = 2

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        options = {"tied": [True, False], "meta_tokens": [0, 2], "exit_after": [0, 1], "ffn_ratios": [2.0, 3.0]}
        return HybridSLMFree(**SMALL, layers=[1, 2, 3], ffns=[0, 1, 2], max_operators=6, **options)


class TestOneMixerAndRouters(LanguageSpaceSuite):
    """A space in which almost nothing is a decision, and whose operators have routers."""

    models = 1
    population = 20

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        constants = {"mixers": ["attention"], "widths": [16], "kv_heads": [2], "skips": [True], "meta_tokens": [1]}
        return HybridSLM(**{**SMALL, **constants}, blocks=[1, 2], ffns=[0], max_operators=5)


# ---- The template ----------------------------------------------------------------------------------


def test_blocks_are_first_mixers_then_second_ones_each_with_its_feed_forwards():
    space = HybridSLM(mixers=DEFAULT_MIXERS)
    assert [d.name for d in space.decisions][:2] == ["width", "kv_heads"]
    stage = {"ratio": "1:2", "first": "attention", "second": "mamba2", "ffns": 1, "blocks": 1}
    plain = {"ratio": "0:1", "second": "deltanet", "ffns": 0, "blocks": 2}
    config = {"width": 128, "kv_heads": 2}
    config |= {f"stage1.{name}": value for name, value in stage.items()}
    config |= {f"stage{i}.{name}": value for i in (2, 3) for name, value in plain.items()}
    kinds = [operator.kind for operator in space.spec_of(config).operators]
    assert kinds == ["attention", "ffn", "mamba2", "ffn", "mamba2", "ffn"] + ["deltanet"] * 4
    (sizes,) = {(o.sizes.heads, o.sizes.kv_heads, o.ffn_width) for o in space.spec_of(config).operators if o.ffn_width}
    assert sizes == (4, 2, 384)


def test_networks_have_at_most_as_many_operators_as_said():
    for space in (HybridSLM(max_operators=14), HybridSLMFree(max_operators=14)):
        rows = space.sample(3000, np.random.default_rng(0))
        operators = space.figures.operators(rows)
        assert operators.max() == 14
        for row, count in list(zip(rows, operators, strict=True))[:20]:
            assert len(space.spec_of(space.config(row)).operators) == count


def test_the_last_stage_is_cut_first():
    space = HybridSLM(max_operators=12)
    raw = space.algebra.sample(2000, np.random.default_rng(0))
    index = space.algebra.index
    cut = space.repair(raw)
    early = [index[f"stage1.{gene}"] for gene in ("blocks", "ffns")]
    late = [index[f"stage3.{gene}"] for gene in ("blocks", "ffns")]
    assert (cut[:, early] != raw[:, early]).any(axis=1).mean() < (cut[:, late] != raw[:, late]).any(axis=1).mean()


def test_kv_heads_divide_heads_and_are_nothing_without_a_mixer_that_has_any():
    space = HybridSLM(mixers=DEFAULT_MIXERS, widths=[64, 96], kv_heads=[1, 2, 4])
    for row in space.sample(300, np.random.default_rng(0)):
        config = space.config(row)
        spec = space.spec_of(config)
        assert all(o.sizes.heads % o.sizes.kv_heads == 0 for o in spec.operators)
        if all(o.kind != "attention" for o in spec.operators):
            assert config["kv_heads"] == 1


def test_layers_choose_kv_heads_only_where_the_mixer_has_any():
    space = HybridSLMFree(mixers=DEFAULT_MIXERS)
    for row in space.sample(50, np.random.default_rng(0)):
        config = space.config(row)
        for name, value in config.items():
            if name.endswith(".mixer"):
                assert (name.replace("mixer", "kv_heads") in config) == (value == "attention")


def test_named_networks():
    template, free = HybridSLM(), HybridSLMFree()
    assert next(iter(template.named)) == "attention_12"
    assert next(iter(free.named)) == "attention_12"
    assert {"attention_3_w128", "mamba2_6", "deltanet_12", "nemotron_flash"} <= set(template.named)
    for space in (template, free):
        operators = space.spec_of(space.named["nemotron_flash"]).operators
        kinds = [operator.kind for operator in operators]
        counts = {kind: kinds.count(kind) for kind in ("attention", "deltanet", "mamba2", "ffn")}
        assert counts == {"attention": 2, "deltanet": 4, "mamba2": 6, "ffn": 12}
    assert tuple(kind for kind in kinds if kind != "ffn") == PUBLISHED
    assert {o.kind for o in template.spec_of(template.named["deltanet_3_w128"]).operators} == {"deltanet", "ffn"}


def test_small_spaces_are_counted_exactly():
    space = HybridSLM(**{**SMALL, "widths": [16]}, blocks=[1], ratios=["0:1", "1:1"], ffns=[0], max_operators=4)
    assert round(10**space.log10_size) == len(np.unique(space.sample(20_000, np.random.default_rng(0)), axis=0))


# ---- Workloads ---------------------------------------------------------------------------------------


def test_made_up_inputs_of_a_step_are_at_the_context():
    space = HybridSLM(**SMALL, meta_tokens=[3])
    graph = space.deployable(space.named["attention_3"]).graphs["step"]
    inputs = {spec.name: random_input(spec) for spec in graph.inputs}
    assert inputs["position"].tolist() == [12 + 3]
    assert inputs["operator1_keys"].shape[2] == 12 + 3


def test_a_whole_plan_begins_where_the_prompt_ends():
    space = HybridSLM(**SMALL)
    workload = replace(space.workload, phase="", batch=2)
    inputs = {spec.name: spec for spec in space.deployable(space.named["attention_3"], workload).graphs["step"].inputs}
    assert inputs["position"].constant == 5
    assert inputs["operator1_keys"].shape[:3] == (2, 2, 5)


def test_lengths_left_out_follow_from_the_longest():
    workload = HybridSLM(max_length=200).workload
    assert (workload.context, workload.source_length, workload.generated_length) == (200, 99, 64)
    assert workload.phase == "step"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mixers": ["attention", "atention"]}, "atention"),
        ({"mixers": []}, "mixers"),
        ({"ratios": ["1:4"]}, "ratios"),
        ({"ffns": [0, 3]}, "ffns"),
        ({"blocks": [2, 1]}, "blocks"),
        ({"widths": [40], "head_sizes": [32]}, "head_sizes"),
        ({"kv_heads": [3]}, "kv_heads"),
        ({"max_operators": 2}, "max_operators"),
        ({"exit_after": [5]}, "exit_after"),
        ({"ffn_ratios": [0.0]}, "ffn_ratios"),
        ({"tied": ["yes"]}, "tied"),
        ({"context": 300, "max_length": 200}, "context"),
        ({"phase": "decode"}, "phase"),
        ({"phase": "", "prompt_length": 190, "generated_length": 50, "max_length": 200}, "generated_length"),
    ],
)
def test_arguments_that_are_none_are_refused(arguments, said):
    with pytest.raises(SpaceError, match=said):
        HybridSLM(**arguments)


def test_importing_the_space_does_not_import_torch():
    code = "import sys, gnomon.search_spaces.hybrid_slm.space, gnomon.search_spaces.hybrid_slm.free as f;"
    done = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr


# ---- What a model is made of ---------------------------------------------------------------------------


def test_a_saved_model_comes_back(tmp_path):
    space = HybridSLMFree(**SMALL, layers=[2], tied=[True, False])
    tokens = torch.arange(12).reshape(2, 6)
    for tied in (True, False):
        config = {"width": 16, "tied": tied, "layer1.mixer": "gla", "layer1.ffns": 1, "layer2.mixer": "attention"}
        model = space.build({**config, "layer2.ffns": 0, "layer2.kv_heads": 2}).eval()
        save_language_model(model, tmp_path)
        again = load_language_model(tmp_path)
        assert again.spec == model.spec
        assert torch.equal(again(tokens), model(tokens))
        assert json.loads((tmp_path / "model.json").read_text())["schema"] == "gnomon.language_model/1"


def test_the_interface_names_states_and_feeds():
    space = HybridSLM(**SMALL, meta_tokens=[2])
    found = interface(space.spec_of(space.named["attention_3"]))
    assert found.states[:2] == ("operator1_keys", "operator1_values")
    assert found.feeds["step"]["next_position"] == "position"
    assert found.feeds["prefill"]["next_operator1_keys"] == "operator1_keys"
    assert (found.vocabulary, found.meta_tokens) == (20, 2)
    assert type(found).from_json(found.to_json()) == found


# ---- Doing less ----------------------------------------------------------------------------------------


def _adaptive(**options):
    space = HybridSLM(**{**SMALL, "widths": [16], "mixers": ["attention"]}, blocks=[2], ffns=[0], **options)
    torch.manual_seed(0)
    return space.build(space.named["attention_6"])


def test_both_heads_learn():
    model = _adaptive(exit_after=[2])
    tokens = torch.randint(0, 20, (2, 8))
    adaptive_loss(model, tokens[:, :-1], tokens[:, 1:], exit_weight=1.0).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    made = forward_all(model, tokens)
    torch.testing.assert_close(made.logits, model(tokens))
    assert not torch.allclose(made.exit_logits, made.logits)
    alone = adaptive_loss(model, tokens[:, :-1], tokens[:, 1:], exit_weight=0.0)
    both = adaptive_loss(model, tokens[:, :-1], tokens[:, 1:], exit_weight=1.0)
    expected = torch.nn.functional.cross_entropy(made.exit_logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(both - alone, expected)


def test_an_early_exit_that_is_never_sure_changes_nothing():
    model = _adaptive(exit_after=[2]).eval()
    written, count = generate_with_exit(model, [1, 2, 3], 10, threshold=1.1)
    assert (count.exited, count.share) == (0, 1.0)
    ids = [1, 2, 3]
    for _ in range(10):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert written == ids[3:]


def test_an_early_exit_that_is_always_sure_leaves_out_what_follows():
    model = _adaptive(exit_after=[2]).eval()
    written, count = generate_with_exit(model, [1, 2, 3], 10, threshold=0.0)
    assert (count.tokens, count.exited) == (9, 9)
    assert count.share == pytest.approx(2 / 6)
    ids = [1, 2, 3, written[0]]
    for token in written[1:]:
        early = forward_all(model, torch.tensor([ids])).exit_logits[0, -1]
        assert token == int(early.argmax())
        ids.append(token)


def test_no_early_exit_is_said():
    with pytest.raises(SpaceError, match="exit_after"):
        generate_with_exit(_adaptive(), [1], 2, 0.5)


def test_routers_begin_by_skipping_nothing_and_learn():
    model = _adaptive(skips=[True])
    plain = LanguageModel(replace(model.spec, skips=False))
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "router" not in name})
    tokens = torch.randint(0, 20, (2, 8))
    torch.testing.assert_close(model(tokens), plain(tokens))
    adaptive_loss(model, tokens[:, :-1], tokens[:, 1:], running_weight=1.0).backward()
    gradient = model.each_branch()[0].router.bias.grad
    assert gradient is not None
    assert gradient.abs() > 0


def test_a_skipped_operator_is_skipped_at_prefill_and_in_every_step():
    model = _adaptive(skips=[True]).eval()
    skipped = model.each_branch()[3]
    torch.nn.init.constant_(skipped.router.bias, -5.0)
    operators = model.spec.operators
    spec = replace(model.spec, operators=operators[:3] + operators[4:], skips=False)
    without, tokens = LanguageModel(spec).eval(), torch.randint(0, 20, (2, 8))
    kept = [number for number in range(6) if number != 3]
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("branches.")}
    for new, old in enumerate(kept):
        part = model.branches[old].state_dict()
        state |= {f"branches.{new}.{name}": value for name, value in part.items() if "router" not in name}
    without.load_state_dict(state)
    calls = []
    skipped.body.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        expected = without(tokens)
        logits, states = model.prefill(tokens[:, :5])
        torch.testing.assert_close(logits, expected[:, 4])
        for index in range(5, 8):
            logits, states = model.step(tokens[:, index], torch.tensor([index]), states)
            torch.testing.assert_close(logits, expected[:, index])
    assert not calls
