"""What every space of decoder-only language models promises, as tests."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ..search_spaces import SearchSpace, Workload
from .search_space_suite import SearchSpaceSuite

if TYPE_CHECKING:
    import torch

    from ..search_spaces.hybrid_slm.generation_space import GenerationSpace


class LanguageSpaceSuite(SearchSpaceSuite):
    """:class:`SearchSpaceSuite` for spaces of language models, measured as ``prefill`` and ``step``.

    Keep networks and lengths small: models are built, exported and run.
    """

    tokens: int = 9
    """Length of the sequences that models read here."""
    exported: int = 1
    """Random networks that are exported, which takes seconds for each kind of operator."""
    tolerance: float = 5e-5
    """Between all tokens at once, token by token, and the exported files."""

    def inputs(self, space: SearchSpace, batch: int) -> tuple[torch.Tensor, ...]:
        """Random tokens."""
        import torch

        return (torch.randint(0, 20, (batch, self.tokens), generator=torch.Generator().manual_seed(0)),)

    # ---- Models --------------------------------------------------------------------------------

    def test_a_token_a_step_equals_all_at_once(self, space: SearchSpace) -> None:
        import torch

        (tokens,) = self.inputs(space, 2)
        for model in self._models(space):
            with torch.no_grad():
                expected = model(tokens)
                logits, states = model.prefill(tokens[:, :4])
                found = [logits]
                for index in range(4, self.tokens):
                    position = torch.tensor([index + model.spec.meta_tokens])
                    logits, states = model.step(tokens[:, index], position, states)
                    found.append(logits)
            torch.testing.assert_close(torch.stack(found, dim=1), expected[:, 3:], rtol=0, atol=self.tolerance)

    def test_later_tokens_are_not_seen(self, space: SearchSpace) -> None:
        import torch

        (tokens,) = self.inputs(space, 2)
        other = tokens.clone()
        other[:, -1] = (other[:, -1] + 1) % 20
        for model in self._models(space):
            with torch.no_grad():
                first, second = model(tokens), model(other)
            torch.testing.assert_close(first[:, :-1], second[:, :-1], rtol=0, atol=self.tolerance)
            assert not torch.allclose(first[:, -1], second[:, -1], atol=self.tolerance)

    # ---- Costs ---------------------------------------------------------------------------------

    def test_costs_equal_an_independent_count(self, space: SearchSpace) -> None:
        """What the operators of a built network say, one by one, of a step at the context."""
        from ..search_spaces.hybrid_slm.ffn import SwiGLU
        from ..search_spaces.hybrid_slm.mixers import mixer_class
        from ..search_spaces.hybrid_slm.specs import FFN

        rows = self._rows(space)[: self.models]
        costs = space.costs(rows)
        for index, row in enumerate(rows):
            spec = _spec(space, row)
            past = int(space.workload.context or 1) + spec.meta_tokens
            work = [
                SwiGLU.work(op.sizes.width, op.ffn_width)
                if op.kind == FFN
                else mixer_class(op.kind).step_work(op.sizes, past)
                for op in spec.operators
            ]
            state = sum(each.state_elements for each in work)
            assert costs.macs[index] == sum(each.macs for each in work) + spec.vocabulary * spec.width
            assert costs.cio[index] == sum(each.state_traffic + 2 * spec.width for each in work)
            assert costs.peak_activation_bytes[index] == 4 * (state + spec.vocabulary + 2 * spec.width)

    def test_macs_equal_torchs_flop_counter(self, space: SearchSpace) -> None:
        """Of matrix products, up to what mixers do element by element."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        rows = self._rows(space)[: self.models]
        for macs, row in zip(space.costs(rows).macs, rows, strict=True):
            step = space.deployable(space.config(row), replace(space.workload, phase="step", batch=1)).graphs["step"]
            assert step.module is not None
            inputs = [
                torch.full(spec.shape, spec.constant or 0, dtype=getattr(torch, spec.dtype)) for spec in step.inputs
            ]
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                step.module().eval()(*inputs)
            counted = counter.get_total_flops() / 2
            assert 0.6 * macs <= counted <= 1.02 * macs, f"macs of {space.config(row)}"

    def test_features_equal_the_graphs(self, space: SearchSpace) -> None:
        pytest.skip("features of language models are not those of graphs of images")

    def test_costs_are_linear_in_the_features(self, space: SearchSpace) -> None:
        """Without that, a linear predictor needs the costs beside them and cannot fold into tables."""
        from ..predictors.features import cost_columns, is_linear

        rows = self._rows(space)
        assert is_linear(space.encode(rows).astype(np.float64), cost_columns(space.costs(rows)))

    # ---- Graphs --------------------------------------------------------------------------------

    @pytest.mark.parametrize("phase", ["step", "prefill", ""])
    def test_the_plan_is_of_the_phase(self, space: SearchSpace, phase: str) -> None:
        workload = replace(space.workload, phase=phase)
        deployable = space.deployable(space.config(self._rows(space)[0]), workload)
        expected = {"step": ["step"], "prefill": ["prefill"], "": ["prefill", "step"]}[phase]
        assert [call.graph for call in deployable.plan] == expected
        assert list(deployable.called.graphs) == expected
        assert list(deployable.graphs) == ["prefill", "step"]
        if not phase:
            assert deployable.plan[1].times == workload.generated_length

    def test_the_plan_answers_like_the_model(self, space: SearchSpace) -> None:
        """Modules run as a device runs them: graphs by name, outputs fed to inputs."""
        import torch

        (tokens,) = self.inputs(space, 1)
        for row in self._rows(space)[: self.models]:
            config = space.config(row)
            model = space.build(config).eval()
            modules = space.graph_modules(model)
            workload = _whole(space.workload, prompt=4, generated=self.tokens - 4)
            deployable = space.deployable(config, workload)
            with torch.no_grad():
                expected = model(tokens)
                reading, stepping = deployable.plan
                graph = deployable.graphs[reading.graph]
                made = dict(zip(graph.outputs, modules[reading.graph](tokens[:, :4]), strict=True))
                found = [made["logits"]]
                for index in range(4, self.tokens):
                    feeds = reading.feeds if index == 4 else stepping.feeds
                    known = {target: made[source] for source, target in feeds.items()} | {"tokens": tokens[:, index]}
                    graph = deployable.graphs[stepping.graph]
                    step = modules[stepping.graph](*(known[spec.name] for spec in graph.inputs))
                    made = dict(zip(graph.outputs, step, strict=True))
                    found.append(made["logits"])
            torch.testing.assert_close(torch.stack(found, dim=1), expected[:, 3:], rtol=0, atol=self.tolerance)

    def test_states_are_as_the_graph_says(self, space: SearchSpace) -> None:
        """Inputs of a step at a context are what prefill gives after as many tokens."""
        import torch

        for row in self._rows(space)[: self.models]:
            config = space.config(row)
            workload = _whole(space.workload, prompt=4, generated=1)
            graphs, modules = space.deployable(config, workload).graphs, space.graph_modules(space.build(config).eval())
            with torch.no_grad():
                outputs = modules["prefill"](self.inputs(space, workload.batch)[0][:, :4])
            made = dict(zip(graphs["prefill"].outputs, outputs, strict=True))
            for spec in graphs["step"].inputs[1:]:
                assert tuple(made[f"next_{spec.name}"].shape) == spec.shape, spec.name
                assert str(made[f"next_{spec.name}"].dtype) == f"torch.{spec.dtype}", spec.name

    def test_quick_export_answers_like_torch(self, space: SearchSpace) -> None:
        """The files that latencies are measured on, at several sizes of every dynamic axis."""
        import onnx

        from ..export import check_exported, export_deployable
        from ..export.direct import EXPORTER

        for row in self._rows(space)[: self.exported]:
            config = space.config(row)
            modules = space.graph_modules(space.build(config).eval())
            with tempfile.TemporaryDirectory() as folder:
                exported = export_deployable(space.deployable(config), Path(folder), modules=modules, direct=True)
                check_exported(exported, modules, batches=(1, 3), tolerance=self.tolerance)
                for graph in exported.graphs.values():
                    properties = onnx.load(str(graph.onnx_path), load_external_data=False).metadata_props
                    writer = {entry.key: entry.value for entry in properties}[EXPORTER]
                    assert writer == "gnomon.export.direct" or not self.exported_directly, writer

    def _models(self, space: SearchSpace) -> list[Any]:
        import torch

        torch.manual_seed(0)
        return [space.build(space.config(row)).eval() for row in self._rows(space)[: self.models]]


def _spec(space: SearchSpace, row: Any) -> Any:
    typed: GenerationSpace = space  # type: ignore[assignment]
    return typed.spec_of(space.config(row))


def _whole(workload: Workload, prompt: int, generated: int) -> Workload:
    return replace(workload, input_shape=(prompt,), source_length=prompt, generated_length=generated, phase="", batch=1)
