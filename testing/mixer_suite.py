"""What every token mixer of language models promises, as tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    import torch

    from ..search_spaces.hybrid_slm.mixers import Mixer, State
    from ..search_spaces.hybrid_slm.sizes import MixerSizes

BATCH, TOKENS = 2, 11


class MixerSuite:
    """Subclass it, give it the fixture ``mixer_type`` (and ``sizes``, if the default ones do not do)."""

    tolerance: float = 2e-5
    """Largest difference between all tokens at once and one after the other, and between torch and ONNX."""

    @pytest.fixture
    def mixer_type(self) -> type[Mixer]:
        """The class under test."""
        raise NotImplementedError("a MixerSuite needs a fixture `mixer_type`")

    @pytest.fixture
    def sizes(self) -> MixerSizes:
        from ..search_spaces.hybrid_slm.sizes import MixerSizes

        return MixerSizes(width=24, heads=4, kv_heads=2, head_size=8, window=4, max_length=64)

    @pytest.fixture
    def mixer(self, mixer_type: type[Mixer], sizes: MixerSizes) -> Mixer:
        import torch

        torch.manual_seed(0)
        return mixer_type(sizes).eval()

    # ---- Values --------------------------------------------------------------------------------

    def test_token_by_token_is_all_at_once(self, mixer: Mixer) -> None:
        import torch

        x = _input(mixer)
        with torch.no_grad():
            expected, expected_state = mixer.prefill(x)
            outputs, state = _steps(mixer, x, 0, mixer.init_state(BATCH))
            assert _distance(mixer(x), expected) <= self.tolerance
        assert _distance(outputs, expected) <= self.tolerance
        for one, other in zip(state, expected_state, strict=True):
            assert _distance(one, other) <= self.tolerance

    @pytest.mark.parametrize("prompt", [1, 3, 8])
    def test_steps_go_on_from_a_prompt(self, mixer: Mixer, prompt: int) -> None:
        import torch

        x = _input(mixer)
        with torch.no_grad():
            expected = mixer(x)
            _, state = mixer.prefill(x[:, :prompt])
            outputs, _ = _steps(mixer, x[:, prompt:], prompt, state)
        assert _distance(outputs, expected[:, prompt:]) <= self.tolerance

    def test_what_comes_later_changes_nothing(self, mixer: Mixer) -> None:
        import torch

        x = _input(mixer)
        changed = x.clone()
        changed[:, 6:] += 1.0
        with torch.no_grad():
            assert _distance(mixer(x)[:, :6], mixer(changed)[:, :6]) <= self.tolerance

    def test_sequences_do_not_mix(self, mixer: Mixer) -> None:
        import torch

        x = _input(mixer)
        with torch.no_grad():
            assert _distance(mixer(x)[1:], mixer(x[1:])) <= self.tolerance

    def test_every_parameter_learns(self, mixer: Mixer) -> None:
        import torch

        if not list(mixer.parameters()):
            pytest.skip("has no parameters")
        weights = torch.randn(BATCH, TOKENS, mixer.sizes.width, generator=torch.Generator().manual_seed(1))
        (mixer.train()(_input(mixer)) * weights).sum().backward()
        for name, parameter in mixer.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name

    def test_it_is_made_by_the_seed(self, mixer_type: type[Mixer], sizes: MixerSizes) -> None:
        import torch

        made = []
        for _ in range(2):
            torch.manual_seed(3)
            made.append(mixer_type(sizes).state_dict())
        assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])

    # ---- What it says of itself ----------------------------------------------------------------

    @pytest.mark.parametrize("past", [0, 2, 9])
    def test_states_are_as_said(self, mixer: Mixer, past: int) -> None:
        import torch

        specs = mixer.state_specs(mixer.sizes, BATCH, past)
        with torch.no_grad():
            state = mixer.prefill(_input(mixer)[:, :past])[1] if past else mixer.init_state(BATCH)
        assert [tuple(tensor.shape) for tensor in state] == [spec.shape for spec in specs]
        assert [str(tensor.dtype).removeprefix("torch.") for tensor in state] == [spec.dtype for spec in specs]
        assert len({spec.name for spec in specs}) == len(specs)

    def test_it_knows_its_parameters(self, mixer: Mixer) -> None:
        count = sum(parameter.numel() for parameter in mixer.parameters())
        assert mixer.step_work(mixer.sizes, 5).parameters == count
        assert mixer.prefill_work(mixer.sizes, 5).parameters == count

    def test_it_knows_its_state(self, mixer: Mixer) -> None:
        kept = sum(int(np.prod(spec.shape)) for spec in mixer.state_specs(mixer.sizes, 1, 9))
        assert mixer.step_work(mixer.sizes, 8).state_elements == kept
        assert mixer.prefill_work(mixer.sizes, 9).state_elements == kept

    def test_costs_grow_with_what_is_done(self, mixer: Mixer) -> None:
        short, long = (mixer.prefill_work(mixer.sizes, tokens).macs for tokens in (8, 32))
        assert 0 <= 3.5 * short <= long
        assert mixer.step_work(mixer.sizes, 32).macs >= mixer.step_work(mixer.sizes, 8).macs >= 0

    def test_roles_are_of_matrices(self, mixer: Mixer) -> None:
        parameters = dict(mixer.named_parameters())
        for name, role in mixer.roles().items():
            assert parameters[name].ndim == 2, name
            assert parameters[name].shape[1 if role == "reads" else 0] == mixer.sizes.width, name

    # ---- Export --------------------------------------------------------------------------------

    def test_onnx_at_two_lengths_and_two_steps(self, mixer: Mixer, tmp_path: Path) -> None:
        import torch

        run = _exported(mixer, tmp_path)
        for batch, tokens in ((BATCH, 8), (1, 5), (1, 1)):
            x = _input(mixer)[:batch]
            with torch.no_grad():
                expected, state = mixer.prefill(x[:, :tokens])
                y, *known = run("prefill", x[:, :tokens])
                assert _distance(torch.from_numpy(y), expected) <= self.tolerance
                for position in (tokens, tokens + 1):
                    expected, state = mixer.step(x[:, position], torch.tensor([position]), state)
                    y, *known = run("step", x[:, position], torch.tensor([position]), *known)
                    assert _distance(torch.from_numpy(y), expected) <= self.tolerance
                    for one, other in zip(known, state, strict=True):
                        assert _distance(torch.from_numpy(one), other) <= self.tolerance
        self._check_from_nothing(mixer, run)

    def _check_from_nothing(self, mixer: Mixer, run: Any) -> None:
        import torch

        x, state = _input(mixer), list(mixer.init_state(BATCH))
        with torch.no_grad():
            expected = mixer(x)
        for position in range(3):
            y, *state = run("step", x[:, position], torch.tensor([position]), *state)
            assert _distance(torch.from_numpy(y), expected[:, position]) <= self.tolerance


def _input(mixer: Mixer) -> torch.Tensor:
    import torch

    return torch.randn(BATCH, TOKENS, mixer.sizes.width, generator=torch.Generator().manual_seed(0))


def _steps(mixer: Mixer, x: torch.Tensor, start: int, state: State) -> tuple[torch.Tensor, State]:
    import torch

    outputs = []
    for index in range(x.shape[1]):
        y, state = mixer.step(x[:, index], torch.tensor([start + index]), state)
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max()) if one.numel() else 0.0


def _exported(mixer: Mixer, folder: Path) -> Any:
    """Runs ``prefill`` or ``step`` through ONNX Runtime: torch or numpy in, numpy out."""
    import onnxruntime as ort
    import torch
    from torch import nn

    class Part(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.mixer, self.part = mixer, name

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            if self.part == "prefill":
                y, state = self.mixer.prefill(inputs[0])
            else:
                y, state = self.mixer.step(inputs[0], inputs[1], inputs[2:])
            return (y, *state)

    batch, tokens, past = (torch.export.Dim(name, min=1, max=4096) for name in ("batch", "tokens", "past"))
    x = _input(mixer)
    specs = mixer.state_specs(mixer.sizes, BATCH, 7)
    with torch.no_grad():
        state = mixer.prefill(x[:, :7])[1]
    axes = [{0: batch} | ({} if spec.grows is None else {spec.grows: past}) for spec in specs]
    parts: dict[str, tuple[Any, list[Any]]] = {
        "prefill": ((x[:, :7],), [{0: batch, 1: tokens}]),
        "step": ((x[:, 7], torch.tensor([7]), *state), [{0: batch}, None, *axes]),
    }
    sessions = {}
    for name, (inputs, dynamic) in parts.items():
        path = folder / f"{name}.onnx"
        torch.onnx.export(
            Part(name),
            inputs,
            str(path),
            input_names=_input_names(len(inputs)),
            dynamic_shapes=(tuple(dynamic),),
            dynamo=True,
            verbose=False,
        )
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        sessions[name] = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(name: str, *inputs: Any) -> list[Any]:
        session = sessions[name]
        arrays = [np.asarray(each.detach() if hasattr(each, "detach") else each) for each in inputs]
        given = dict(zip(_input_names(len(arrays)), arrays, strict=True))
        # What a graph does not need (a position, of mixers without) may be no input of it.
        return list(session.run(None, {each.name: given[each.name] for each in session.get_inputs()}))

    return run


def _input_names(count: int) -> list[str]:
    return [f"input_{index}" for index in range(count)]
