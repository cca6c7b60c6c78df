"""Mixers that attend, against loops over tokens and heads in float64, and against transformers where there is one."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from gnomon.errors import SpaceError
from gnomon.search_spaces.hybrid_slm.mixers import mixer_class
from gnomon.search_spaces.hybrid_slm.mixers.block_sparse import block_count, selected_count
from gnomon.search_spaces.hybrid_slm.mixers.block_sparse import block_size as sparse_block_size
from gnomon.search_spaces.hybrid_slm.mixers.mla import latent_size, rotated_size
from gnomon.search_spaces.hybrid_slm.mixers.s2_attention import block_size as strided_block_size
from gnomon.search_spaces.hybrid_slm.sizes import MixerSizes

SIZES = MixerSizes(width=24, heads=4, kv_heads=2, head_size=8, window=16, max_length=64)
BATCH, TOKENS = 2, 45
KINDS = ("attention", "sliding_window", "mla", "mla_recompute", "s2_attention", "block_sparse", "local_global")
TOLERANCE = 1e-5


def made(kind, sizes=SIZES):
    torch.manual_seed(0)
    mixer = mixer_class(kind)(sizes).eval()
    with torch.no_grad():  # Weights that begin all alike would hide which is used where.
        for name, parameter in mixer.named_parameters():
            if name.startswith(("pool", "norm")):
                parameter.mul_(1 + 0.5 * torch.rand_like(parameter))
    return mixer


def inputs(tokens=TOKENS, sizes=SIZES):
    return torch.randn(BATCH, tokens, sizes.width, generator=torch.Generator().manual_seed(1))


def by_steps(mixer, x, start=0, state=None):
    outputs = []
    with torch.no_grad():
        state = mixer.init_state(len(x)) if state is None else state
        for index in range(x.shape[1]):
            y, state = mixer.step(x[:, index], torch.tensor([start + index]), state)
            outputs.append(y)
    return torch.stack(outputs, dim=1)


# ---- Loops over tokens and heads -------------------------------------------------------------------


def rotated(vector, position):
    """Rotary positions as complex numbers: feature i and feature i + D/2 are one number."""
    half = len(vector) // 2
    numbers = vector[:half] + 1j * vector[half:]
    numbers = numbers * np.exp(1j * position * 10_000.0 ** (-np.arange(half) / half))
    return np.concatenate([numbers.real, numbers.imag])


def softmax_mean(query, keys, values, size=None):
    """The attention of one query to lists of keys and values, and the shares."""
    scores = np.array([query @ key for key in keys]) / math.sqrt(len(query) if size is None else size)
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    return sum(share * value for share, value in zip(shares, values, strict=True)), shares


def weights_of(mixer):
    return {name: parameter.detach().double().numpy() for name, parameter in mixer.named_parameters()}


def heads_of(weights, name, x, sizes, rotate=True):
    """Of one sequence ``(T, C)`` a list over heads of lists over tokens."""
    projected = x @ weights[f"{name}.weight"].T
    parts = projected.reshape(len(x), -1, sizes.head_size)
    return [
        [rotated(part, token) if rotate else part for token, part in enumerate(parts[:, head])]
        for head in range(parts.shape[1])
    ]


def looped(mixer, x, one_token):
    """``one_token(token, head, kv_head, query, keys, values)`` for all tokens and heads of all sequences."""
    sizes, weights = mixer.sizes, weights_of(mixer)
    sequences = []
    for sequence in x.double().numpy():
        queries, keys = (heads_of(weights, name, sequence, sizes) for name in "qk")
        values = heads_of(weights, "v", sequence, sizes, rotate=False)
        mixed = np.zeros((len(sequence), sizes.heads, sizes.head_size))
        for token in range(len(sequence)):
            for head in range(sizes.heads):
                kv_head = head * sizes.kv_heads // sizes.heads
                mixed[token, head] = one_token(
                    token, head, kv_head, queries[head][token], keys[kv_head], values[kv_head], queries, sequence
                )
        sequences.append(mixed.reshape(len(sequence), -1) @ weights["out.weight"].T)
    return torch.from_numpy(np.stack(sequences))


def of_visible(visible):
    def one_token(token, head, kv_head, query, keys, values, *_):
        seen = [each for each in range(token + 1) if visible(token, each, kv_head)]
        return softmax_mean(query, [keys[each] for each in seen], [values[each] for each in seen])[0]

    return one_token


def loop_attention(mixer, x):
    return looped(mixer, x, of_visible(lambda token, other, kv_head: True))


def loop_sliding_window(mixer, x):
    return looped(mixer, x, of_visible(lambda token, other, kv_head: token - other < mixer.sizes.window))


def loop_s2_attention(mixer, x):
    sizes, block = mixer.sizes, strided_block_size(mixer.sizes)

    def visible(token, other, kv_head):
        is_local = token // block - other // block < sizes.window // block
        return is_local or (other // block) % sizes.kv_heads == kv_head

    return looped(mixer, x, of_visible(visible))


def loop_block_sparse(mixer, x, windowed=False):
    sizes, weights = mixer.sizes, weights_of(mixer)
    block, count, shared = sparse_block_size(sizes), selected_count(sizes), sizes.heads // sizes.kv_heads

    def summary(rows, number, pool):
        return sum(pool[place] * rows[number * block + place] for place in range(block))

    def one_token(token, head, kv_head, query, keys, values, queries, sequence):
        complete = range((token + 1) // block)
        branches = [np.zeros(sizes.head_size)]
        importance = np.zeros(token // block + 1)
        if len(complete):
            pooled_keys = [summary(keys, number, weights["pool_k"][kv_head]) for number in complete]
            pooled_values = [summary(values, number, weights["pool_v"][kv_head]) for number in complete]
            branches = [softmax_mean(query, pooled_keys, pooled_values)[0]]
            for other in range(kv_head * shared, (kv_head + 1) * shared):
                importance[: len(complete)] += softmax_mean(queries[other][token], pooled_keys, pooled_values)[1]
        forced = {0, token // block}
        ranked = [number for number in np.argsort(-importance) if number not in forced]
        chosen = forced | set(ranked[: count - len(forced)])
        seen = [each for each in range(token + 1) if each // block in chosen]
        branches.append(softmax_mean(query, [keys[each] for each in seen], [values[each] for each in seen])[0])
        if windowed:
            first = max(0, token - sizes.window + 1)
            branches.append(softmax_mean(query, keys[first : token + 1], values[first : token + 1])[0])
        gates = weights["gate.weight"].reshape(sizes.heads, len(branches), -1)[head] @ sequence[token]
        return sum(branch / (1 + math.exp(-gate)) for branch, gate in zip(branches, gates, strict=True))

    return looped(mixer, x, one_token)


def loop_local_global(mixer, x):
    return loop_block_sparse(mixer, x, windowed=True)


def loop_mla(mixer, x):
    """Equations (9)-(19) of DeepSeek-V2, without its compression of queries."""
    sizes, weights = mixer.sizes, weights_of(mixer)
    latent, size = latent_size(sizes), sizes.head_size
    sequences = []
    for sequence in x.double().numpy():
        queries = (sequence @ weights["q.weight"].T).reshape(len(sequence), sizes.heads, -1)
        down = sequence @ weights["down.weight"].T
        latents = [
            row / math.sqrt((row**2).mean() + 1e-6) * weights["norm.weight"] for row in (each[:latent] for each in down)
        ]
        shared = [rotated(each[latent:], token) for token, each in enumerate(down)]
        mixed = np.zeros((len(sequence), sizes.heads, size))
        for head in range(sizes.heads):
            rows = slice(head * size, (head + 1) * size)
            keys = [
                np.concatenate([weights["up_k.weight"][rows] @ each, key])
                for each, key in zip(latents, shared, strict=True)
            ]
            values = [weights["up_v.weight"][rows] @ each for each in latents]
            for token in range(len(sequence)):
                plain, turned = queries[token, head, :size], rotated(queries[token, head, size:], token)
                query = np.concatenate([plain, turned])
                mixed[token, head] = softmax_mean(query, keys[: token + 1], values[: token + 1])[0]
        sequences.append(mixed.reshape(len(sequence), -1) @ weights["out.weight"].T)
    return torch.from_numpy(np.stack(sequences))


LOOPS = {
    "attention": loop_attention,
    "sliding_window": loop_sliding_window,
    "mla": loop_mla,
    "mla_recompute": loop_mla,
    "s2_attention": loop_s2_attention,
    "block_sparse": loop_block_sparse,
    "local_global": loop_local_global,
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_forms_are_the_loops_over_tokens_and_heads(kind):
    mixer, x = made(kind), inputs()
    expected = LOOPS[kind](mixer, x)
    with torch.no_grad():
        for y in (mixer(x), mixer.prefill(x)[0], by_steps(mixer, x)):
            torch.testing.assert_close(y.double(), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", ["sliding_window", "s2_attention"])
def test_far_context_is_left_out(kind):
    """Or the loops would prove nothing: what is sparse differs from attention, and only where its window ends."""
    mixer, everything, x = made(kind), made("attention"), inputs()
    everything.load_state_dict(mixer.state_dict())
    with torch.no_grad():
        distance = (mixer(x) - everything(x)).abs().amax(dim=(0, 2))
    assert distance[: SIZES.window].max() <= TOLERANCE
    assert distance[SIZES.window + 2 :].min() > 1e-3


@pytest.mark.parametrize("length", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("kind", ["sliding_window", "s2_attention", "local_global"])
def test_steps_after_prompts_below_at_and_beyond_the_window(kind, length):
    mixer, x = made(kind), inputs()
    with torch.no_grad():
        expected = mixer(x)
        _, state = mixer.prefill(x[:, :length])
    outputs = by_steps(mixer, x[:, length:], length, state)
    torch.testing.assert_close(outputs, expected[:, length:], atol=TOLERANCE, rtol=0)


# ---- What is kept, and what is seen ------------------------------------------------------------------


def test_a_sliding_window_keeps_no_more_than_its_window():
    mixer, x = made("sliding_window"), inputs()
    state = mixer.init_state(BATCH)
    with torch.no_grad():
        for position in range(TOKENS):
            _, state = mixer.step(x[:, position], torch.tensor([position]), state)
            assert all(tensor.shape[2] == SIZES.window for tensor in state)


def test_s2_heads_share_out_the_older_context():
    """Every older token is seen by the heads of one KV head, every local one by all: what changes when it changes."""
    sizes = dataclasses.replace(SIZES, heads=4, kv_heads=4)
    mixer = made("s2_attention", sizes)
    visible = mixer._visible(torch.arange(TOKENS))
    block = strided_block_size(sizes)
    for token in range(TOKENS):
        first_local = max(0, (token // block + 1) * block - sizes.window)
        seers = visible[:, token, : token + 1].sum(0)
        assert (seers[:first_local] == 1).all()
        assert (seers[first_local:] == sizes.heads).all()


def test_s2_keeps_older_tokens_once():
    past = 1000
    kept = {kind: mixer_class(kind).step_work(SIZES, past).state_elements for kind in ("attention", "s2_attention")}
    ring = 2 * SIZES.window * SIZES.kv_inner
    assert kept["s2_attention"] - ring == kept["attention"] / SIZES.kv_heads


@pytest.mark.parametrize("kind", ["block_sparse", "local_global"])
def test_selection_drops_blocks(kind):
    """Or the loops would prove nothing: there are more blocks than are selected, and KV heads select different ones."""
    mixer, x = made(kind), inputs()
    positions = torch.arange(TOKENS)
    with torch.no_grad():
        queries, keys, values = mixer._projected(x, positions)
        summaries = mixer._pooled(keys, mixer.pool_k, positions), mixer._pooled(values, mixer.pool_v, positions)
        _, importance = mixer._summarised(queries, summaries, positions)
        selected = mixer._selected(importance, positions)
    present = positions // sparse_block_size(SIZES)
    assert selected.shape[-1] == selected_count(SIZES) < present[-1] + 1 <= block_count(SIZES)
    for token in range(TOKENS):
        chosen = selected[:, :, token]
        assert (chosen == 0).any(-1).all()
        assert (chosen == present[token]).any(-1).all()
    assert len({tuple(sorted(each.tolist())) for each in selected[:, :, -1].flatten(0, 1)}) > 1


def test_both_schedules_of_mla_are_one_operator():
    absorbing, recomputing = made("mla"), made("mla_recompute")
    recomputing.load_state_dict(absorbing.state_dict())
    x = inputs()
    torch.testing.assert_close(by_steps(absorbing, x), by_steps(recomputing, x), atol=TOLERANCE, rtol=0)
    of = {kind: mixer_class(kind).step_work(SIZES, 100) for kind in ("mla", "mla_recompute")}
    assert of["mla"].macs < of["mla_recompute"].macs
    assert of["mla"].state_elements == of["mla_recompute"].state_elements == 101 * (32 + 4)
    assert latent_size(SIZES) + rotated_size(SIZES) == 32 + 4


# ---- What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        ("attention", {"kv_heads": 3}, "kv_heads"),
        ("attention", {"kv_heads": 0}, "kv_heads"),
        ("attention", {"head_size": 7}, "head_size"),
        ("sliding_window", {"window": 0}, "window"),
        ("sliding_window", {"kv_heads": 3}, "kv_heads"),
        ("mla", {"head_size": 6}, "head_size"),
        ("mla", {"kv_heads": 0}, "kv_heads"),
        ("mla_recompute", {"head_size": 6}, "head_size"),
        ("s2_attention", {"kv_heads": 1}, "kv_heads"),
        ("s2_attention", {"window": 17}, "window"),
        ("s2_attention", {"window": 0}, "window"),
        ("block_sparse", {"window": 1}, "window"),
        ("block_sparse", {"max_length": 14}, "max_length"),
        ("local_global", {"max_length": 14}, "max_length"),
    ],
)
def test_sizes_that_do_not_do_are_named(kind, changes, field):
    with pytest.raises(SpaceError) as caught:
        mixer_class(kind)(dataclasses.replace(SIZES, **changes))
    assert caught.value.field == field
    assert caught.value.value == changes[field]


def test_the_smallest_sizes_that_do():
    mixer_class("s2_attention")(dataclasses.replace(SIZES, window=18))
    mixer_class("block_sparse")(dataclasses.replace(SIZES, max_length=15))
    mixer_class("sliding_window")(dataclasses.replace(SIZES, window=1))


# ---- transformers ------------------------------------------------------------------------------------


def transformers_attention(kind):
    """The same attention of transformers with our weights, as a function of ``(B, T, C)``."""
    pytest.importorskip("transformers", exc_type=ImportError)
    mixer = made(kind)
    sizes, rope = mixer.sizes, {"rope_type": "default", "rope_theta": 10_000.0}
    common = {
        "hidden_size": sizes.width,
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": 1,
        "rope_parameters": rope,
        "attn_implementation": "eager",
    }
    from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

    mask_of = create_causal_mask
    if kind == "attention":
        from transformers import LlamaConfig as Config
        from transformers.models.llama.modeling_llama import LlamaAttention as Theirs
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding as Rope

        config = Config(num_key_value_heads=sizes.kv_heads, head_dim=sizes.head_size, **common)
    elif kind == "sliding_window":
        from transformers import MistralConfig as Config
        from transformers.models.mistral.modeling_mistral import MistralAttention as Theirs
        from transformers.models.mistral.modeling_mistral import MistralRotaryEmbedding as Rope

        mask_of = create_sliding_window_causal_mask
        config = Config(
            num_key_value_heads=sizes.kv_heads, head_dim=sizes.head_size, sliding_window=sizes.window, **common
        )
    else:
        from transformers import DeepseekV3Config as Config
        from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention as Theirs
        from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RotaryEmbedding as Rope

        config = Config(
            num_key_value_heads=sizes.heads,
            kv_lora_rank=latent_size(sizes),
            q_lora_rank=None,
            qk_rope_head_dim=rotated_size(sizes),
            qk_nope_head_dim=sizes.head_size,
            v_head_dim=sizes.head_size,
            rope_interleave=False,
            **common,
        )
    theirs = Theirs(config, layer_idx=0).eval()
    theirs.load_state_dict(their_names(mixer))

    def run(x):
        positions = torch.arange(x.shape[1])[None]
        mask = mask_of(config, x, None, None, position_ids=positions)
        with torch.no_grad():
            return theirs(x, Rope(config)(x, positions), mask)[0]

    return mixer, run


def their_names(mixer):
    ours = mixer.state_dict()
    if "down.weight" not in ours:
        return {f"{name}_proj.weight": ours[f"{'out' if name == 'o' else name}.weight"] for name in "qkvo"}
    parts = [ours[name].unflatten(0, (mixer.sizes.heads, -1)) for name in ("up_k.weight", "up_v.weight")]
    return {
        "q_proj.weight": ours["q.weight"],
        "kv_a_proj_with_mqa.weight": ours["down.weight"],
        "kv_a_layernorm.weight": ours["norm.weight"],
        "kv_b_proj.weight": torch.cat(parts, dim=1).flatten(0, 1),
        "o_proj.weight": ours["out.weight"],
    }


@pytest.mark.parametrize("kind", ["attention", "sliding_window", "mla"])
def test_transformers_says_the_same(kind):
    mixer, run = transformers_attention(kind)
    x = inputs()
    expected = run(x)
    with torch.no_grad():
        torch.testing.assert_close(mixer.prefill(x)[0], expected, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(by_steps(mixer, x), expected, atol=TOLERANCE, rtol=0)
