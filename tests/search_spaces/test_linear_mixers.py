"""Mixers of linear time against recurrences token by token, in float64, and against other implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnomon.search_spaces.hybrid_slm.mixers import mixer_class
from gnomon.search_spaces.hybrid_slm.mixers._delta import _inverse_by_halves, delta_rule, unit_lower_inverse
from gnomon.search_spaces.hybrid_slm.mixers._recurrent import _carried_by_scan, carried
from gnomon.search_spaces.hybrid_slm.mixers.gla import gated_attention
from gnomon.search_spaces.hybrid_slm.mixers.latte import _log_sums_in_chunks, log_sums
from gnomon.search_spaces.hybrid_slm.mixers.local_linear import local_linear_fit
from gnomon.search_spaces.hybrid_slm.mixers.mamba2 import decayed_attention
from gnomon.search_spaces.hybrid_slm.model import Branch
from gnomon.search_spaces.hybrid_slm.sizes import MixerSizes
from gnomon.search_spaces.hybrid_slm.specs import Operator

SIZES = MixerSizes(width=24, heads=4, kv_heads=2, head_size=8, window=4, max_length=512)
HEADS, SIZE, INNER = SIZES.heads, SIZES.head_size, SIZES.inner
LENGTHS = (1, 31, 32, 33, 64, 300)


# ---- The papers, one token after the other -----------------------------------------------------


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _silu(x):
    return x * _sigmoid(x)


def _softplus(x):
    return np.logaddexp(0, x)


def _rms(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight


def _unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-6)


def _convolved(x, weight, bias=0.0):
    """``(T, C)`` with ``(kernel, C)``."""
    padded = np.concatenate([np.zeros((len(weight) - 1, x.shape[1])), x])
    return _silu(np.stack([(padded[t : t + len(weight)] * weight).sum(0) for t in range(len(x))]) + bias)


def _delta_reference(queries, keys, values, beta, decay=None):
    """``(T, H, K)`` thrice, ``(T, H)``."""
    state, outputs = np.zeros((keys.shape[1], keys.shape[2], values.shape[2])), []
    for t in range(len(queries)):
        if decay is not None:
            state = state * decay[t][:, None, None]
        predicted = np.einsum("hk,hkv->hv", keys[t], state)
        state = state + np.einsum("hk,hv->hkv", keys[t], beta[t][:, None] * (values[t] - predicted))
        outputs.append(np.einsum("hk,hkv->hv", queries[t], state))
    return np.stack(outputs), state


def _decayed_reference(queries, keys, values, decay):
    """``(T, H, K)``, ``(T, H, K)``, ``(T, H, V)``, ``(T, H, K)``."""
    state, outputs = np.zeros((keys.shape[1], keys.shape[2], values.shape[2])), []
    for t in range(len(queries)):
        state = state * decay[t][..., None] + np.einsum("hk,hv->hkv", keys[t], values[t])
        outputs.append(np.einsum("hk,hkv->hv", queries[t], state))
    return np.stack(outputs), state


def _of_heads(x, heads=HEADS):
    return x.reshape(len(x), heads, -1)


def _deltanet(p, x):
    projected = x @ p["inputs.weight"].T
    mixed = _convolved(projected[:, : 3 * INNER], p["convolution.weight"])
    q, k, v = (_of_heads(part) for part in np.split(mixed, 3, axis=1))
    outputs, _ = _delta_reference(_unit(q), _unit(k), v, _sigmoid(projected[:, 3 * INNER :]))
    return _rms(outputs, p["norm.weight"]).reshape(len(x), -1) @ p["out.weight"].T


def _gated_deltanet(p, x):
    projected = x @ p["inputs.weight"].T
    mixed = _convolved(projected[:, : 3 * INNER], p["convolution.weight"])
    q, k, v = (_of_heads(part) for part in np.split(mixed, 3, axis=1))
    gates, rates, steps = np.split(projected[:, 3 * INNER :], [INNER, INNER + HEADS], axis=1)
    decay = np.exp(-np.exp(p["decay.log_rate"]) * _softplus(steps + p["decay.step_bias"]))
    outputs, _ = _delta_reference(_unit(q), _unit(k), v, _sigmoid(rates), decay)
    return (_rms(outputs, p["norm.weight"]).reshape(len(x), -1) * _silu(gates)) @ p["out.weight"].T


def _mamba2(p, x):
    inner, heads, key = 2 * INNER, 2 * HEADS, 2 * SIZE
    projected = x @ p["inputs.weight"].T
    convolved, gates, steps = np.split(projected, [inner + 2 * key, 2 * inner + 2 * key], axis=1)
    mixed = _convolved(convolved, p["convolution.weight"], p["convolution.bias"])
    values, keys, queries = np.split(mixed, [inner, inner + key], axis=1)
    values, steps = _of_heads(values, heads), _softplus(steps + p["decay.step_bias"])
    decay = np.exp(-np.exp(p["decay.log_rate"]) * steps)
    outputs, _ = _decayed_reference(
        np.repeat(queries[:, None], heads, 1),
        np.repeat(keys[:, None], heads, 1),
        values * steps[..., None],
        np.repeat(decay[..., None], key, 2),
    )
    outputs = (outputs + p["direct"][:, None] * values).reshape(len(x), -1)
    return _rms(outputs * _silu(gates), p["norm.weight"]) @ p["out.weight"].T


def _gla(p, x):
    projected = x @ p["inputs.weight"].T
    q, k, v, gates, low = np.split(projected, np.cumsum([INNER // 2, INNER // 2, INNER, INNER]), axis=1)
    decay = _sigmoid(low @ p["decay.weight"].T + p["decay.bias"]) ** (1 / 16)
    outputs, _ = _decayed_reference(*(_of_heads(part) for part in (q, k, v, decay)))
    return (_rms(outputs, p["norm.weight"]).reshape(len(x), -1) * _silu(gates)) @ p["out.weight"].T


def _latte(p, x):
    q, k, v = (_of_heads(part) for part in np.split(x @ p["inputs.weight"].T, 3, axis=1))
    chosen = np.exp(q) / np.exp(q).sum(-1, keepdims=True)
    outputs = []
    for t in range(len(x)):
        weights = np.exp(k[: t + 1])
        means = np.einsum("shl,shv->hlv", weights, v[: t + 1]) / weights.sum(0)[..., None]
        outputs.append(np.einsum("hl,hlv->hv", chosen[t], means).ravel())
    return np.stack(outputs) @ p["out.weight"].T


REFERENCES = {
    "deltanet": _deltanet,
    "gated_deltanet": _gated_deltanet,
    "gla": _gla,
    "latte": _latte,
    "mamba2": _mamba2,
}


def _mixer(kind, seed=0, sizes=SIZES):
    """With no parameter left at a value that would hide it."""
    torch.manual_seed(seed)
    mixer = mixer_class(kind)(sizes).eval()
    with torch.no_grad():
        for name, parameter in mixer.named_parameters():
            if parameter.ndim == 1 or "convolution" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _double(*tensors):
    return tuple(tensor.detach().double().numpy() for tensor in tensors)


@pytest.mark.parametrize("kind", sorted(REFERENCES))
@pytest.mark.parametrize("tokens", LENGTHS)
def test_all_at_once_is_the_recurrence_of_the_paper(kind, tokens):
    mixer, x = _mixer(kind), _random(1, tokens, SIZES.width)
    parameters = {name: parameter.detach().double().numpy() for name, parameter in mixer.named_parameters()}
    expected = REFERENCES[kind](parameters, x[0].double().numpy())
    np.testing.assert_allclose(mixer(x).detach()[0].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("kind", sorted(REFERENCES))
def test_steps_go_on_after_many_chunks(kind):
    mixer, x = _mixer(kind), _random(2, 301, SIZES.width)
    with torch.no_grad():
        expected, known = mixer.prefill(x)
        _, state = mixer.prefill(x[:, :300])
        output, state = mixer.step(x[:, 300], torch.tensor([300]), state)
    torch.testing.assert_close(output, expected[:, 300], atol=2e-5, rtol=0)
    for one, other in zip(state, known, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", sorted(REFERENCES))
def test_gradients_are_of_the_numbers(kind):
    sizes = MixerSizes(width=6, heads=2, kv_heads=1, head_size=4, window=4, max_length=64)
    mixer, x = _mixer(kind, sizes=sizes).double(), _random(1, 70, 6).double().requires_grad_()
    weights, direction = _random(1, 70, 6, seed=1).double(), _random(1, 70, 6, seed=2).double()
    (mixer(x) * weights).sum().backward()
    with torch.no_grad():
        step = 1e-5 * direction
        numeric = ((mixer(x + step) - mixer(x - step)) * weights).sum() / 2e-5
    torch.testing.assert_close((x.grad * direction).sum(), numeric, rtol=1e-5, atol=1e-6)


# ---- Where naive formulations break ------------------------------------------------------------


def _delta_inputs(kind, tokens=300):
    """Same keys for all tokens, nearly the same, or in turn: what the power series of the inverse cannot do."""
    queries, values = _random(1, tokens, 2, 16, seed=1), _random(1, tokens, 2, 16, seed=2)
    noise = {"equal": 0.0, "near": 0.05}.get(kind, 1.0)
    keys = 1.0 + noise * _random(1, tokens, 2, 16, seed=3)
    if kind == "opposite":
        keys = torch.where(torch.arange(tokens)[:, None, None] % 2 == 0, 1.0, -1.0).expand(1, -1, 2, 16).clone()
    return queries, torch.nn.functional.normalize(keys, dim=-1), values


@pytest.mark.parametrize("kind", ["equal", "near", "opposite"])
@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_delta_rule_of_correlated_keys(kind, rate):
    queries, keys, values = _delta_inputs(kind)
    beta = torch.full((1, 300, 2), rate)
    outputs, state = delta_rule(queries, keys, values, beta)
    expected, expected_state = _delta_reference(*(part[0] for part in _double(queries, keys, values, beta)))
    np.testing.assert_allclose(outputs[0].numpy(), expected, atol=3e-5)
    np.testing.assert_allclose(state[0].numpy(), expected_state, atol=3e-5)


@pytest.mark.parametrize("size", [2, 4, 32, 64])
def test_both_inverses_of_correlated_keys(size):
    keys = torch.nn.functional.normalize(1.0 + 0.05 * _random(3, size, 8), dim=-1)
    strict = (keys @ keys.transpose(-1, -2)).tril(-1)
    expected = np.linalg.inv(np.eye(size) + strict.double().numpy())
    for inverse in (unit_lower_inverse, _inverse_by_halves):
        np.testing.assert_allclose(inverse(strict).numpy(), expected, atol=2e-6)


def test_the_inverse_knows_its_gradient():
    strict = _random(2, 8, 8).double().tril(-1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: unit_lower_inverse(x.tril(-1)), (strict,))


def test_a_scan_is_the_loop():
    transitions, updates = 0.2 * _random(2, 3, 5, 4, 4), _random(2, 3, 5, 4, 6, seed=1)
    for one, other in zip(carried(transitions, updates), _carried_by_scan(transitions, updates), strict=True):
        torch.testing.assert_close(one, other)


def _log_decays(strength, *shape):
    """Per token: none, as in training, strong, gone at once, and all of them mixed."""
    if strength == "mixed":
        choices = torch.tensor([0.0, -0.05, -8.0, -200.0])
        return choices[torch.randint(4, shape, generator=torch.Generator().manual_seed(4))]
    return -float(strength) * (0.5 + torch.rand(*shape, generator=torch.Generator().manual_seed(4)))


STRENGTHS = [0.0, 0.05, 8.0, 200.0, "mixed"]


def _tolerance(strength):
    """Sums of logarithms that reach thousands keep a weak decay after a strong one to 1e-4 only."""
    return 1e-4 if strength == "mixed" else 3e-6


@pytest.mark.parametrize("strength", STRENGTHS)
def test_strong_decay_of_mamba2(strength):
    queries, keys, values = _random(1, 300, 8), _random(1, 300, 8, seed=1), _random(1, 300, 2, 4, seed=2)
    log_decay = _log_decays(strength, 1, 300, 2)
    _compare_decayed(
        lambda q, k, v, a: _transposed(decayed_attention(q, k, v, a)),
        (queries, keys, values, log_decay),
        (*(part[:, :, None].expand(-1, -1, 2, -1) for part in (queries, keys)), values, log_decay[..., None]),
        _tolerance(strength),
    )


@pytest.mark.parametrize("strength", STRENGTHS)
def test_strong_decay_of_gla(strength):
    inputs = (*(_random(1, 300, 2, 8, seed=seed) for seed in range(3)), _log_decays(strength, 1, 300, 2, 8))
    _compare_decayed(gated_attention, inputs, inputs, _tolerance(strength))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_strong_decay_of_the_gated_delta_rule(strength):
    queries, keys, values = _delta_inputs("near")
    beta, log_decay = torch.full((1, 300, 2), 0.9), _log_decays(strength, 1, 300, 2).requires_grad_()
    keys.requires_grad_()
    outputs, _ = delta_rule(queries, keys, values, beta, log_decay)
    expected, _ = _delta_reference(
        *(part[0] for part in _double(queries, keys, values, beta, log_decay.double().exp()))
    )
    np.testing.assert_allclose(outputs[0].detach().numpy(), expected, atol=10 * _tolerance(strength))
    outputs.square().sum().backward()
    assert torch.isfinite(keys.grad).all()
    assert torch.isfinite(log_decay.grad).all()


def _transposed(result):
    outputs, state = result
    return outputs, state.transpose(1, 2)


def _compare_decayed(function, inputs, reference_inputs, tolerance):
    inputs = tuple(each.requires_grad_() for each in inputs)
    outputs, state = function(*inputs)
    *three, log_decay = (part[0] for part in _double(*reference_inputs))
    expected, expected_state = _decayed_reference(*three, np.exp(log_decay))
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(outputs[0].detach().numpy() / scale, expected / scale, atol=tolerance)
    np.testing.assert_allclose(state[0].detach().numpy() / scale, expected_state / scale, atol=tolerance)
    (outputs / scale).square().sum().backward()
    assert all(torch.isfinite(each.grad).all() for each in inputs)


def test_latte_of_scores_that_leap():
    keys = _random(1, 200, 2, 8)
    keys[:, 50:] += 120.0
    keys[:, 100:] -= 240.0
    expected = np.logaddexp.accumulate(keys.double().numpy(), axis=1)
    for sums in (log_sums, _log_sums_in_chunks):
        np.testing.assert_allclose(sums(keys).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_local_linear_attention_is_the_weighted_fit():
    """Solved exactly, query by query, as one ridge regression with an intercept that is not regularised."""
    queries, keys, values = (_random(9, 6, seed=seed) for seed in range(3))
    weights, ridge = torch.softmax(_random(9, 9, seed=3), dim=-1), 0.1
    found = local_linear_fit(queries, keys, values, weights, torch.tensor(ridge))
    q, k, v, w = _double(queries, keys, values, weights)
    design = np.concatenate([np.ones((9, 1)), k], axis=1)
    penalty = ridge * np.diag([0.0] + [1.0] * 6)
    for i in range(9):
        fit = np.linalg.solve(design.T @ (w[i][:, None] * design) + penalty, design.T @ (w[i][:, None] * v))
        np.testing.assert_allclose(found[i].numpy(), fit[0] + q[i] @ fit[1:], atol=2e-4)


def test_a_large_ridge_is_softmax_attention():
    queries, keys, values = (_random(9, 6, seed=seed) for seed in range(3))
    weights = torch.softmax(_random(9, 9, seed=3), dim=-1)
    found = local_linear_fit(queries, keys, values, weights, torch.tensor(1e6))
    torch.testing.assert_close(found, weights @ values, atol=1e-5, rtol=0)


def test_identity_adds_nothing():
    x = _random(2, 3, 24)
    branch = Branch(Operator("identity", SIZES))
    assert torch.equal(branch(x), x)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.slow if k == "deltanet" else pytest.mark.soak) for k in sorted(REFERENCES)],
)
@pytest.mark.parametrize("example", [7, 150])
def test_prefill_exports_at_any_number_of_chunks(kind, example, tmp_path):
    import onnxruntime

    class Prefill(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mixer = _mixer(kind)

        def forward(self, x):
            output, state = self.mixer.prefill(x)
            return (output, *state)

    module = Prefill()
    dynamic = ({0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("tokens", min=1, max=4096)},)
    x = _random(2, example, SIZES.width)
    torch.onnx.export(module, (x,), str(tmp_path / "m.onnx"), dynamic_shapes=dynamic, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    for batch, tokens in ((1, 1), (2, 32), (1, 65), (1, 300)):
        x = _random(batch, tokens, SIZES.width)
        found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        for one, other in zip(found, module(x), strict=True):
            np.testing.assert_allclose(one, other.detach().numpy(), atol=2e-5)


# ---- Other implementations ---------------------------------------------------------------------


def test_mamba2_is_that_of_transformers():
    pytest.importorskip("transformers")
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    sizes = MixerSizes(width=32, heads=4, kv_heads=4, head_size=8, window=4, max_length=64)
    ours = _mixer("mamba2", sizes=sizes)
    config = Mamba2Config(
        num_heads=8, head_dim=8, hidden_size=32, state_size=16, expand=2, n_groups=1, chunk_size=16, conv_kernel=4,
        use_bias=False, use_conv_bias=True, layer_norm_epsilon=1e-6, num_hidden_layers=1, time_step_limit=(0.0, 1e9),
    )  # fmt: skip
    theirs, weights = Mamba2Mixer(config, layer_idx=0).eval(), ours.state_dict()
    convolved, gates, steps = weights["inputs.weight"].split([64 + 32, 64, 8])
    theirs.load_state_dict(
        {
            "in_proj.weight": torch.cat([gates, convolved, steps]),
            "conv1d.weight": weights["convolution.weight"].T[:, None],
            "conv1d.bias": weights["convolution.bias"],
            "dt_bias": weights["decay.step_bias"],
            "A_log": weights["decay.log_rate"],
            "D": weights["direct"],
            "norm.weight": weights["norm.weight"],
            "out_proj.weight": weights["out.weight"],
        }
    )
    x = _random(2, 100, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=2e-5, rtol=0)


def test_gated_deltanet_is_that_of_transformers():
    pytest.importorskip("transformers")
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    sizes = MixerSizes(width=32, heads=4, kv_heads=4, head_size=8, window=4, max_length=64)
    ours = _mixer("gated_deltanet", sizes=sizes)
    config = Qwen3NextConfig(
        hidden_size=32, linear_num_value_heads=4, linear_num_key_heads=4, linear_key_head_dim=8,
        linear_value_head_dim=8, linear_conv_kernel_dim=4, num_hidden_layers=1, layer_types=["linear_attention"],
        rms_norm_eps=1e-6 / 8,  # Its queries are scaled by 8 ** -0.5, which its norm undoes.
    )  # fmt: skip
    theirs, weights = Qwen3NextGatedDeltaNet(config, layer_idx=0).eval(), ours.state_dict()
    *parts, rates, steps = weights["inputs.weight"].split([32, 32, 32, 32, 4, 4])
    theirs.load_state_dict(
        {
            # A head's queries, keys, values and gates lie together there.
            "in_proj_qkvz.weight": torch.stack([part.view(4, 8, 32) for part in parts], dim=1).reshape(-1, 32),
            "in_proj_ba.weight": torch.stack([rates, steps], dim=1).reshape(-1, 32),
            "conv1d.weight": weights["convolution.weight"].T[:, None],
            "dt_bias": weights["decay.step_bias"],
            "A_log": weights["decay.log_rate"],
            "norm.weight": weights["norm.weight"],
            "out_proj.weight": weights["out.weight"],
        }
    )
    x = _random(2, 100, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=2e-5, rtol=0)
