"""What every space of sequence models promises, as tests."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ..search_spaces import SearchSpace
from ..search_spaces.deployable import Deployable
from ..search_spaces.sequence import BEGIN, END, PAD, SPECIAL_TOKENS, SequenceToSequence
from .search_space_suite import SearchSpaceSuite

if TYPE_CHECKING:
    import torch
    from torch import nn


class SequenceSpaceSuite(SearchSpaceSuite):
    """:class:`SearchSpaceSuite` for spaces whose models are a
    :class:`~gnomon.search_spaces.sequence.SequenceToSequence`, measured as the plan of several graphs.

    Keep lengths and networks small, and the workload at one beam: models are built and decode.
    """

    source_vocabulary: int = 30
    target_vocabulary: int = 25
    target_length: int = 6
    tolerance: float = 1e-5
    """Between all tokens at once and token by token."""

    def inputs(self, space: SearchSpace, batch: int) -> tuple[torch.Tensor, ...]:
        """Random source and target tokens; every second source is padded."""
        import torch

        generator = torch.Generator().manual_seed(0)
        length = int(space.workload.source_length or 4)
        source = torch.randint(len(SPECIAL_TOKENS), self.source_vocabulary, (batch, length), generator=generator)
        source[:, -1] = END
        source[1::2, length // 2] = END
        source[1::2, length // 2 + 1 :] = PAD
        shape = (batch, self.target_length)
        target = torch.randint(len(SPECIAL_TOKENS), self.target_vocabulary, shape, generator=generator)
        target[:, 0] = BEGIN
        return source, target

    # ---- Models ------------------------------------------------------------------------------

    def test_a_token_a_step_equals_all_at_once(self, space: SearchSpace) -> None:
        import torch

        source, target = self.inputs(space, 3)
        for model in self._models(space):
            with torch.no_grad():
                expected = model(source, target)
            assert expected.shape == (*target.shape, self.target_vocabulary)
            torch.testing.assert_close(_stepwise(model, source, target), expected, rtol=0, atol=self.tolerance)

    def test_padding_changes_nothing(self, space: SearchSpace) -> None:
        import torch

        source, target = self.inputs(space, 2)
        shorter = source[1:, : int((source[1] != PAD).sum())]
        assert shorter.shape[1] < source.shape[1]
        for model in self._models(space):
            with torch.no_grad():
                padded, alone = model(source, target)[1:], model(shorter, target[1:])
            torch.testing.assert_close(padded, alone, rtol=0, atol=self.tolerance)

    def test_later_tokens_are_not_seen(self, space: SearchSpace) -> None:
        import torch

        source, target = self.inputs(space, 2)
        other = target.clone()
        other[:, -1] = END
        for model in self._models(space):
            with torch.no_grad():
                first, second = model(source, target), model(source, other)
            torch.testing.assert_close(first[:, :-1], second[:, :-1], rtol=0, atol=self.tolerance)
            assert not torch.allclose(first[:, -1], second[:, -1], atol=self.tolerance)

    def test_the_source_matters(self, space: SearchSpace) -> None:
        import torch

        source, target = self.inputs(space, 2)
        other = source.clone()
        other[:, 0] = (source[:, 0] - len(SPECIAL_TOKENS) + 1) % 10 + len(SPECIAL_TOKENS)
        for model in self._models(space):
            with torch.no_grad():
                assert not torch.allclose(model(source, target), model(other, target), atol=self.tolerance)

    def test_reordered_rows_go_on_as_they_would(self, space: SearchSpace) -> None:
        import torch

        source, target = self.inputs(space, 3)
        rows = torch.tensor([2, 0, 0, 1])
        for model in self._models(space):
            with torch.no_grad():
                state = model.start(source)
                _, state = model.step(target[:, 0], state)
                expected, _ = model.step(target[:, 1], state)
                found, _ = model.step(target[rows, 1], model.reorder(state, rows))
            torch.testing.assert_close(found, expected[rows], rtol=0, atol=self.tolerance)

    # ---- Costs ---------------------------------------------------------------------------------

    def test_costs_equal_an_independent_count(self, space: SearchSpace) -> None:
        """What matrix products read and write while the plan runs, counted as it does."""
        rows = self._rows(space)[: self.models]
        columns = space.costs(rows).columns()
        for index, row in enumerate(rows):
            deployable = space.deployable(space.config(row))
            assert deployable.workload.beam == 1
            assert columns["cio"][index] == _product_elements(deployable), f"cio of {space.config(row)}"

    def test_macs_equal_torchs_flop_counter(self, space: SearchSpace) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        rows = self._rows(space)[: self.models]
        macs = space.costs(rows).macs
        for index, row in enumerate(rows):
            with FlopCounterMode(display=False) as counter:
                run_plan(space.deployable(space.config(row)))
            assert counter.get_total_flops() == 2 * macs[index], f"macs of {space.config(row)}"

    def test_peak_memory_holds_the_caches(self, space: SearchSpace) -> None:
        rows = self._rows(space)[: self.models]
        peaks = space.costs(rows).peak_activation_bytes
        for peak, row in zip(peaks, rows, strict=True):
            fed = run_plan(space.deployable(space.config(row)))
            caches = sum(t.nbytes for name, t in fed.items() if name.split("_")[0] in ("past", "source"))
            assert caches < peak < 100 * caches

    def test_features_equal_the_graphs(self, space: SearchSpace) -> None:
        pytest.skip("features of sequence models are not those of graphs of images")

    def test_costs_are_linear_in_the_features(self, space: SearchSpace) -> None:
        """Without that, a linear predictor needs the costs beside them and cannot fold into tables."""
        from ..predictors.features import cost_columns, is_linear

        rows = self._rows(space)
        assert is_linear(space.encode(rows).astype(np.float64), cost_columns(space.costs(rows)))

    # ---- Graphs --------------------------------------------------------------------------------

    def test_the_plan_answers_like_the_model(self, space: SearchSpace) -> None:
        """Trained modules run as a device runs them: graphs by name, outputs fed to inputs."""
        import torch

        source, target = self.inputs(space, 1)
        for row in self._rows(space)[: self.models]:
            config = space.config(row)
            deployable, model = space.deployable(config), space.build(config).eval()
            with torch.no_grad():
                expected = model(source, target)
            found = _planned(deployable, space.graph_modules(model), source, target)
            torch.testing.assert_close(found, expected, rtol=0, atol=self.tolerance)

    def test_quick_export_answers_like_torch(self, space: SearchSpace) -> None:
        """The files that latencies are measured on, at several sizes of every dynamic axis."""
        import onnx

        from ..export import check_exported, export_deployable
        from ..export.direct import EXPORTER

        for row in self._rows(space)[: self.models if self.exported_directly else 1]:
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


def run_plan(deployable: Deployable) -> dict[str, torch.Tensor]:
    """Runs the plan of fresh modules on zeros; what was fed in the end, by name of the input."""
    import torch

    fed: dict[str, torch.Tensor] = {}
    for call in deployable.plan:
        graph = deployable.graphs[call.graph]
        assert graph.module is not None
        module = graph.module().eval()
        for _ in range(call.times):
            inputs = [
                fed.get(spec.name, torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype))) for spec in graph.inputs
            ]
            with torch.no_grad():
                outputs = dict(zip(graph.outputs, module(*inputs), strict=True))
            fed.update({target: outputs[output] for output, target in call.feeds.items()})
    return fed


def _stepwise(model: SequenceToSequence, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    import torch

    state, logits = None, []
    with torch.no_grad():
        state = model.start(source)
        for tokens in target.T:
            row, state = model.step(tokens, state)
            logits.append(row)
    return torch.stack(logits, dim=1)


def _planned(
    deployable: Deployable, modules: dict[str, nn.Module], source: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Logits ``(1, T, V)`` of the plan's last graph, called once a token."""
    import torch

    reading, stepping = deployable.plan
    with torch.no_grad():
        read = dict(zip(deployable.graphs[reading.graph].outputs, modules[reading.graph](source), strict=True))
        fed = {reading.feeds[name]: value for name, value in read.items() if name in reading.feeds}
        graph, logits = deployable.graphs[stepping.graph], []
        for tokens in target[0]:
            zeros = {s.name: torch.zeros(s.shape, dtype=getattr(torch, s.dtype)) for s in graph.inputs}
            inputs = {**zeros, **fed, "tokens": tokens.reshape(1, 1)}
            made = modules[stepping.graph](*(inputs[spec.name] for spec in graph.inputs))
            outputs = dict(zip(graph.outputs, made, strict=True))
            logits.append(outputs["logits"][:, 0])
            fed.update({stepping.feeds[name]: value for name, value in outputs.items() if name in stepping.feeds})
    return torch.stack(logits, dim=1)


def _product_elements(deployable: Deployable) -> float:
    """Elements that matrix products of the plan read and write, weights left out."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    aten = torch.ops.aten
    total = 0

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal total
            found = function(*args, **(kwargs or {}))
            if function in (aten.mm.default, aten.addmm.default):
                read = args[0] if function == aten.mm.default else args[1]
                total += read.numel() + found.numel()
            elif function == aten.bmm.default:
                total += args[0].numel() + args[1].numel() + found.numel()
            return found

    with Counter():  # type: ignore[no-untyped-call]
        run_plan(deployable)
    return float(total)
