"""Elastic linear, layer norm, embedding, attention and depth: each equals what it extracts."""

import itertools

import pytest
import torch
from torch import nn

from gnomon.errors import SpaceError
from gnomon.search_spaces.elastic import (
    Attention,
    ElasticAttention,
    ElasticDepth,
    ElasticEmbedding,
    ElasticLayerNorm,
    ElasticLinear,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), list(itertools.product((1, 5, 12), (3, 7))))
def test_linear(inputs, outputs, bias):
    layer = ElasticLinear(12, 7, bias=bias)
    layer.resize(inputs, outputs)
    x = torch.randn(4, 3, inputs)
    plain = layer.extract()
    assert type(plain) is nn.Linear
    assert torch.equal(layer(x), plain(x))
    assert torch.equal(plain.weight, layer.weight[:outputs, :inputs])
    layer(x).square().mean().backward()
    outside = layer.weight.grad.clone()
    assert outside[:outputs, :inputs].abs().sum() > 0
    outside[:outputs, :inputs] = 0
    assert not outside.any()


def test_extracted_weights_are_copies_and_slices_are_views():
    layer = ElasticLinear(6, 4)
    layer.resize(3, 2)
    weight, bias = layer.sliced()
    assert weight.untyped_storage().data_ptr() == layer.weight.untyped_storage().data_ptr()
    assert bias.untyped_storage().data_ptr() == layer.bias.untyped_storage().data_ptr()
    plain = layer.extract()
    nn.init.zeros_(layer.weight)
    assert plain.weight.abs().sum() > 0


def test_extracting_draws_no_random_numbers():
    layer = ElasticAttention(8, 2)
    before = torch.get_rng_state()
    layer.extract()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("features", [1, 4, 9])
def test_layer_norm(features):
    layer = ElasticLayerNorm(9)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    layer.resize(features)
    x = torch.randn(3, 5, features)
    plain = layer.extract()
    assert type(plain) is nn.LayerNorm
    assert torch.equal(layer(x), plain(x))


@pytest.mark.parametrize("features", [1, 4, 9])
def test_embedding(features):
    layer = ElasticEmbedding(11, 9, padding_idx=0)
    layer.resize(features)
    tokens = torch.randint(11, (3, 5))
    plain = layer.extract()
    assert type(plain) is nn.Embedding
    assert torch.equal(layer(tokens), plain(tokens))
    layer(torch.zeros(2, 2, dtype=torch.int64)).sum().backward()
    assert not layer.weight.grad.any()


@pytest.mark.parametrize("fixed", ["qkv_width", "head_width"])
@pytest.mark.parametrize(("width", "heads", "causal"), list(itertools.product((8, 13), (1, 2, 4), (False, True))))
def test_self_attention(width, heads, causal, fixed):
    layer = ElasticAttention(13, 4, qkv_width=16, fixed=fixed).eval()
    layer.resize(width=width, heads=heads)
    x = torch.randn(3, 6, width)
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[1, 4:] = True
    plain = layer.extract()
    assert type(plain) is Attention
    features = 16 if fixed == "qkv_width" else 4 * heads
    assert plain.q.weight.shape == (features, width)
    for padding in (None, mask):
        expected = plain(x, causal=causal, key_padding_mask=padding)
        torch.testing.assert_close(layer(x, causal=causal, key_padding_mask=padding), expected, rtol=0, atol=1e-6)


def test_cross_attention_has_a_width_of_its_own_for_keys():
    layer = ElasticAttention(12, 4, key_width=10).eval()
    layer.resize(width=8, heads=2)
    x, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 10)
    assert layer(x, memory).shape == (2, 3, 8)
    layer.resize(key_width=6)
    memory = memory[..., :6]
    torch.testing.assert_close(layer(x, memory), layer.extract()(x, memory), rtol=0, atol=1e-6)


def test_attention_equals_torchs():
    ours = Attention(12, 3).eval()
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.k.bias, ours.v.bias]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, memory = torch.randn(2, 4, 12), torch.randn(2, 5, 12)
    padding = torch.tensor([[False] * 5, [False, False, True, True, True]])
    expected, _ = theirs(x, memory, memory, key_padding_mask=padding)
    torch.testing.assert_close(ours(x, memory, key_padding_mask=padding), expected, rtol=1e-5, atol=1e-6)


def test_decoding_with_a_cache_equals_all_at_once():
    layer = ElasticAttention(12, 4).eval()
    layer.resize(width=8, heads=2)
    x = torch.randn(2, 6, 8)
    whole = layer(x, causal=True)
    keys, values = layer.keys_values(x[:, :3])
    last = layer.attend(layer.queries(x[:, 1:3]), keys, values, causal=True)
    torch.testing.assert_close(last, whole[:, 1:3], rtol=0, atol=1e-6)
    for step in range(3, 6):
        key, value = layer.keys_values(x[:, step : step + 1])
        keys, values = torch.cat([keys, key], 2), torch.cat([values, value], 2)
        result = layer.attend(layer.queries(x[:, step : step + 1]), keys, values, causal=True)
        torch.testing.assert_close(result, whole[:, step : step + 1], rtol=0, atol=1e-6)


def test_depth_runs_the_first_blocks_and_leaves_the_others_without_gradient():
    blocks = ElasticDepth(ElasticLinear(4, 4) for _ in range(3))
    blocks.resize(2)
    x = torch.randn(5, 4)
    plain = blocks.extract()
    assert len(plain) == 2
    assert torch.equal(blocks(x), plain(x))
    blocks(x).sum().backward()
    assert blocks[1].weight.grad is not None
    assert blocks[2].weight.grad is None


@pytest.mark.parametrize(
    ("action", "field"),
    [
        (lambda: ElasticLinear(4, 3).resize(in_features=5), "in_features"),
        (lambda: ElasticLinear(4, 3).resize(out_features=0), "out_features"),
        (lambda: ElasticLinear(4, 3).resize(2.0), "in_features"),
        (lambda: ElasticLayerNorm(4).resize(5), "features"),
        (lambda: ElasticEmbedding(4, 4).resize(5), "features"),
        (lambda: ElasticDepth([ElasticLinear(4, 4)]).resize(2), "depth"),
        (lambda: ElasticAttention(8, 4).resize(heads=8), "heads"),
        (lambda: ElasticAttention(8, 4).resize(heads=3), "heads"),
        (lambda: ElasticAttention(8, 3), "heads"),
        (lambda: ElasticAttention(8, 4, fixed="both"), "fixed"),
    ],
)
def test_bad_sizes_are_named(action, field):
    with pytest.raises(SpaceError, match=field):
        action()
