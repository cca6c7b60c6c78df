"""Transformer spaces: sizes, names, costs, shared weights, HAT's own features."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import gnomon.conf
from gnomon.errors import SpaceError
from gnomon.search_spaces import Workload, space_from_spec
from gnomon.search_spaces.hat import HATDecoderSpace, HATSpace, published_features
from gnomon.search_spaces.hat.genes import plain
from gnomon.search_spaces.hat_features import PUBLISHED
from gnomon.search_spaces.sequence import PAD

TOY = {"source_vocabulary": 30, "target_vocabulary": 25, "max_length": 40}
TINY = {**TOY, "widths": (8, 12), "ffn_widths": (8,), "heads": (1, 2), "qkv_width": 8, "source_length": 4}


def option(name):
    (folder,) = gnomon.conf.__path__
    return space_from_spec(OmegaConf.to_container(OmegaConf.load(f"{folder}/space/{name}.yaml")))


class TestSize:
    def test_wmt_has_about_ten_to_the_fifteen(self):
        """Two widths each; (3 x 2)^6 encoders; sums of (3 x 2 x 2 x 3)^n decoders."""
        space = option("hat_wmt")
        expected = 4 * 6**6 * sum(36**n for n in range(1, 7))
        assert space.log10_size == pytest.approx(np.log10(expected))
        assert 14.5 < space.log10_size < 15.5
        assert len(space.decisions) == 40, "HAT's genes: the encoder's depth and both stacks'"

    @pytest.mark.parametrize(
        "space",
        [
            HATSpace(**TINY, encoder_layers=(1, 2), decoder_layers=(1, 2), attended=(1, 2)),
            HATSpace(**TINY, encoder_layers=(1, 3), decoder_layers=(2,), attended=(1, 3)),
            HATDecoderSpace(**TINY, decoder_layers=(1, 3, 4)),
        ],
    )
    def test_it_is_the_number_of_architectures(self, space):
        rows = space.enumerate()
        assert len(np.unique(rows, axis=0)) == len(rows)
        assert len(rows) == round(10**space.log10_size)

    def test_the_toy_space_is_large(self):
        assert 8 < HATSpace().log10_size < 12


class TestDecisions:
    def test_layers_beyond_the_depth_do_not_matter(self):
        space = HATSpace(**TOY)
        config = dict(space.named["plain_3x4"])
        row = space.genotype(config)
        row[space.algebra.index["decoder.layers"]] = 0
        shallow = space.config(space.canonical(row[None])[0])
        assert "decoder.layer1.ffn" in shallow
        assert not any(name.startswith("decoder.layer2") for name in shallow)

    def test_no_layer_attends_to_more_than_there_is(self):
        space = HATSpace(**TOY)
        rows = space.sample(2_000, np.random.default_rng(0))
        depth = rows[:, space.algebra.index["encoder.layers"]] + 1
        columns = [column for name, column in space.algebra.index.items() if name.endswith(".attended")]
        assert (rows[:, columns] + 1 <= depth[:, None]).all()
        assert (rows[:, columns].max(axis=1) + 1 == depth).any()

    def test_named_networks(self):
        space = HATSpace(**TOY, encoder_layers=(6,), decoder_layers=(1, 2, 6))
        assert next(iter(space.named)) == "plain_6x6"
        assert {"plain_6x1", "plain_6x1_w48", "smallest", "largest"} <= set(space.named)
        reference = space.named["plain_6x6"]
        assert reference == plain(space.sizes, 6, 6, 64)
        assert reference["encoder.layer1.ffn"] == 192
        assert reference["decoder.layer6.attended"] == 1
        parameters = {name: float(space.costs(space.named_genotype(name)[None]).parameters[0]) for name in space.named}
        assert min(parameters, key=parameters.get) == "smallest"
        assert parameters["largest"] == max(parameters.values())

    def test_of_a_decoder_only_space(self):
        assert next(iter(HATDecoderSpace(**TOY).named)) == "plain_6"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"widths": ()},
            {"widths": (64, 48)},
            {"ffn_widths": "64"},
            {"heads": (3,)},
            {"encoder_layers": (0, 1)},
            {"encoder_layers": (1, 2), "attended": (1, 2, 3)},
            {"encoder_layers": (1, 2), "attended": (2,)},
            {"source_vocabulary": 4},
            {"target_vocabulary": 2.5},
            {"shared_embeddings": "decoder"},
            {"shared_embeddings": "all"},
            {"source_length": 41},
            {"generated_length": 0},
            {"beam": 0},
            {"dropout": 1.0},
            {"qkv_width": True},
        ],
    )
    def test_wrong_arguments_are_named(self, wrong):
        with pytest.raises(SpaceError) as error:
            HATSpace(**{**TOY, **wrong})
        field = error.value.field
        assert field is not None
        assert field.removeprefix("workload.") in wrong


class TestModels:
    def test_tables_are_shared_as_asked(self):
        sizes = {**TINY, "source_vocabulary": 25}
        counts = []
        for sharing in ("none", "target", "all"):
            space = HATSpace(**sizes, shared_embeddings=sharing)
            row = space.named_genotype("plain_3x4")
            parameters = space.costs(row[None]).parameters[0]
            assert sum(p.numel() for p in space.build(space.config(row)).parameters()) == parameters
            counts.append(parameters)
        assert counts[0] - counts[1] == counts[1] - counts[2] == 25 * 12

    def test_parameters_without_tables(self):
        space = HATSpace(**TOY)
        rows = space.sample(3, np.random.default_rng(0))
        for row, expected in zip(rows, space.figures.parameters_without_tables(rows), strict=True):
            model = space.build(space.config(row))
            inner = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("tables."))
            assert inner == expected

    def test_a_sentence_that_is_too_long_is_refused(self):
        for space in (HATSpace(**TOY), HATDecoderSpace(**TOY)):
            model = space.build(space.named["smallest"])
            tokens = torch.full((1, 41), 5)
            with pytest.raises(SpaceError, match="max_length"):
                model(tokens, tokens[:, :2])
            with pytest.raises(SpaceError, match="max_length"):
                model.start(tokens)

    def test_a_prompt_and_what_follows_share_the_length(self):
        model = HATDecoderSpace(**TOY).build(HATDecoderSpace(**TOY).named["smallest"])
        with pytest.raises(SpaceError, match="max_length"):
            model(torch.full((1, 30), 5), torch.full((1, 11), 5))
        state = model.start(torch.full((1, 40), 5))
        with pytest.raises(SpaceError, match="max_length"):
            model.step(torch.tensor([1]), state)

    def test_a_source_of_padding_alone_gives_numbers(self):
        for space in (HATSpace(**TOY), HATDecoderSpace(**TOY)):
            model = space.build(space.named["smallest"]).eval()
            assert torch.isfinite(model(torch.full((2, 3), PAD), torch.ones(2, 2, dtype=torch.int64))).all()

    def test_attended_layers_are_read(self):
        """A layer that attends to two encoder layers answers otherwise than one that attends to the last."""
        space = HATSpace(**TOY)
        config = dict(space.named["plain_3x1"])
        model = space.elastic().eval()
        source, target = torch.tensor([[5, 6, 7, 2]]), torch.tensor([[1, 8]])
        answers = []
        for attended in (1, 2, 3):
            model.select({**config, "decoder.layer1.attended": attended})
            answers.append(model(source, target))
        assert not torch.allclose(answers[0], answers[1])
        assert not torch.allclose(answers[1], answers[2])


class TestSharedWeights:
    def test_the_largest_network_is_selected_first(self):
        space = HATSpace(**TOY)
        model = space.elastic().eval()
        source, target = torch.tensor([[5, 6, 2]]), torch.tensor([[1, 8]])
        expected = model(source, target)
        model.select(space.named["largest"])
        assert torch.equal(model(source, target), expected)

    def test_the_selected_network_decodes(self):
        for space in (HATSpace(**TOY), HATDecoderSpace(**TOY)):
            model = space.elastic().eval()
            source, target = torch.tensor([[5, 6, 2], [7, 2, 0]]), torch.tensor([[1, 8, 9], [1, 4, 6]])
            for row in space.sample(3, np.random.default_rng(0)):
                model.select(space.config(row))
                with torch.no_grad():
                    expected, state, found = model(source, target), model.start(source), []
                    for tokens in target.T:
                        logits, state = model.step(tokens, state)
                        found.append(logits)
                torch.testing.assert_close(torch.stack(found, 1), expected, rtol=0, atol=1e-5)

    def test_dropout_shrinks_with_the_width(self):
        space = HATSpace(**TOY, widths=(32, 64), dropout=0.2)
        model = space.elastic()
        config = {**space.named["smallest"], "decoder.width": 64}
        model.select(config)
        assert model.encoder_layers[0].dropout.p == model.source_dropout.p == pytest.approx(0.1)
        assert model.decoder_layers[0].dropout.p == model.dropout.p == pytest.approx(0.2)
        assert model.extract(config).decoder_layers[0].dropout.p == pytest.approx(0.2)

    def test_only_the_front_is_trained(self):
        space = HATSpace(**TOY)
        model = space.elastic()
        model.select(space.named["smallest"])
        model(torch.tensor([[5, 6, 2]]), torch.tensor([[1, 8]])).sum().backward()
        gradient = model.decoder_layers[0].ffn.inner.weight.grad
        assert gradient[:64, :48].abs().sum() > 0
        assert gradient[64:].abs().sum() == gradient[:, 48:].abs().sum() == 0
        assert model.decoder_layers[1].ffn.inner.weight.grad is None


class TestFeatures:
    def test_hats_own(self):
        space = option("hat_wmt")
        config = dict(plain(space.sizes, 6, 2, 640))
        config |= {"decoder.layer1.ffn": 1024, "decoder.layer2.self_heads": 4, "decoder.layer2.attended": 3}
        config |= {"encoder.layer1.heads": 4, "encoder.width": 512}
        found = dict(zip(PUBLISHED, published_features(space, space.genotype(config)[None])[0], strict=True))
        assert found == {
            "encoder_embed_dim": 512,
            "encoder_layer_num": 6,
            "encoder_ffn_embed_dim_avg": 2048,
            "encoder_self_attention_heads_avg": pytest.approx(44 / 6),
            "decoder_embed_dim": 640,
            "decoder_layer_num": 2,
            "decoder_ffn_embed_dim_avg": 1536,
            "decoder_self_attention_heads_avg": 6,
            "decoder_ende_attention_heads_avg": 8,
            "decoder_arbitrary_ende_attn_avg": 2,
        }

    def test_hats_own_need_an_encoder(self):
        space = HATDecoderSpace(**TOY)
        with pytest.raises(SpaceError):
            published_features(space, space.sample(2, np.random.default_rng(0)))

    def test_work_and_every_choice(self):
        names = HATSpace(**TOY).feature_names
        assert {"read_layers", "step_layers", "step_ffn_macs", "source_macs", "decoder.layer2.attended=3"} <= set(names)

    def test_costs_grow_with_lengths_and_beams(self):
        row = HATSpace(**TOY).named_genotype("plain_3x4")[None]
        base = HATSpace(**TOY).costs(row)
        for change in ({"source_length": 30}, {"generated_length": 30}, {"beam": 3}):
            changed = HATSpace(**{**TOY, **change}).costs(row)
            assert changed.macs[0] > base.macs[0], change
            assert changed.parameters[0] == base.parameters[0]


class TestDeployable:
    def test_lengths_are_the_workloads(self):
        space = HATSpace(**TOY, beam=3)
        deployable = space.deployable(space.named["plain_3x4"])
        reading, stepping = deployable.plan
        assert (reading.graph, reading.times, stepping.graph, stepping.times) == ("encoder", 1, "step", 20)
        shapes = {spec.name: spec.shape for spec in deployable.graphs["step"].inputs}
        assert shapes["tokens"] == (1, 3)
        assert shapes["past_keys1"] == (1, 3, 4, 0, 16)
        assert shapes["source_keys1"] == (1, 1, 4, 16, 20)
        other = Workload((9,), batch=2, source_length=9, generated_length=7, beam=2)
        deployable = space.deployable(space.named["plain_3x4"], other)
        assert deployable.workload == other
        assert deployable.plan[1].times == 7
        assert deployable.graphs["encoder"].inputs[0].shape == (2, 9)

    @pytest.mark.parametrize(
        "workload",
        [
            Workload((9,)),
            Workload((9,), source_length=9),
            Workload((9,), source_length=99, generated_length=9),
        ],
    )
    def test_a_workload_without_lengths_is_refused(self, workload):
        space = HATSpace(**TOY)
        with pytest.raises(SpaceError, match="workload"):
            space.deployable(space.named["plain_3x4"], workload)

    def test_every_fed_input_exists(self):
        for space in (HATSpace(**TOY), HATDecoderSpace(**TOY)):
            for row in space.sample(5, np.random.default_rng(0)):
                deployable = space.deployable(space.config(row))
                inputs = {spec.name for spec in deployable.graphs["step"].inputs}
                for call in deployable.plan:
                    assert set(call.feeds) <= set(deployable.graphs[call.graph].outputs)
                    assert set(call.feeds.values()) <= inputs
                fed = {target for call in deployable.plan for target in call.feeds.values()}
                assert inputs - fed == {"tokens"}

    def test_modules_of_another_model_are_refused(self):
        with pytest.raises(SpaceError):
            HATSpace(**TOY).graph_modules(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["hat", "hat_wmt", "hat_decoder"])
def test_options_make_spaces(name):
    space = option(name)
    assert space.spec()["_target_"].startswith("gnomon.search_spaces.hat.")
    assert space.costs(space.sample(3, np.random.default_rng(0))).parameters.min() > 0
