"""What every search space promises, as tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ..errors import SpaceError
from ..search_spaces import COST_NAMES, GENE_DTYPE, Genotypes, SearchSpace, space_from_spec
from ..search_spaces.graph_encoded import GRAPH_FEATURES
from ..search_spaces.operations import executed, features

if TYPE_CHECKING:
    import torch
    from torch import nn


class SearchSpaceSuite:
    """Subclass it, give it the fixture ``space``, and pytest does the rest.

    Set ``classes`` to the number of outputs. Keep images and networks small: models are built.
    """

    classes: int | None = None
    """Expected outputs of a model; None to check only the batch dimension."""
    population: int = 200
    """Rows in the checks of the algebra."""
    models: int = 4
    """Random architectures that are built."""
    exported_directly: bool = True
    """Whether models must be writable as ONNX without torch's exporter, which takes seconds a model."""
    counted_costs: tuple[str, ...] = COST_NAMES
    """Costs that must equal those counted from the traced module."""

    @pytest.fixture
    def space(self) -> SearchSpace:
        """The space under test."""
        raise NotImplementedError("a SearchSpaceSuite needs a fixture `space`")

    # ---- Rows ------------------------------------------------------------------------------

    def test_sample_is_valid_and_canonical(self, space: SearchSpace) -> None:
        rows = self._rows(space)
        assert rows.dtype == GENE_DTYPE
        assert rows.shape == (self.population, len(space.decisions))
        space.algebra.validate(rows)
        np.testing.assert_array_equal(space.canonical(rows), rows)

    def test_sample_is_deterministic(self, space: SearchSpace) -> None:
        np.testing.assert_array_equal(self._rows(space, seed=5), self._rows(space, seed=5))
        if space.log10_size > 1:
            assert not np.array_equal(self._rows(space, seed=5), self._rows(space, seed=6))

    def test_sample_reaches_every_choice(self, space: SearchSpace) -> None:
        rows = space.sample(5_000, np.random.default_rng(0))
        active = space.algebra.active(rows)
        for gene, decision in enumerate(space.decisions):
            reached = set(rows[active[:, gene], gene].tolist())
            assert reached == set(range(len(decision.choices))), f"{decision.name} is never all of its choices"

    def test_canonical_is_idempotent(self, space: SearchSpace) -> None:
        raw = space.algebra.sample(self.population, np.random.default_rng(1))
        before = raw.copy()
        once = space.canonical(raw)
        np.testing.assert_array_equal(space.canonical(once), once)
        np.testing.assert_array_equal(raw, before, err_msg="canonical changed its argument")

    def test_inactive_genes_are_zero(self, space: SearchSpace) -> None:
        rows = space.canonical(space.algebra.sample(self.population, np.random.default_rng(1)))
        assert not rows[~space.algebra.active(rows)].any()

    def test_canonical_changes_inactive_genes_only(self, space: SearchSpace) -> None:
        raw = space.repair(space.algebra.sample(self.population, np.random.default_rng(1)))
        changed = space.canonical(raw) != raw
        assert not changed[space.algebra.active(raw)].any()

    def test_repaired_rows_are_valid(self, space: SearchSpace) -> None:
        raw = space.algebra.sample(self.population, np.random.default_rng(1))
        repaired = space.repair(raw)
        space.algebra.validate(repaired)
        np.testing.assert_array_equal(space.repair(repaired), repaired, err_msg="repair is not idempotent")

    # ---- Mutation and crossover ------------------------------------------------------------

    def test_mutants_are_valid_and_canonical(self, space: SearchSpace) -> None:
        parents = self._rows(space)
        for rate in (None, 0.5, 1.0):
            mutants = space.mutate(parents, np.random.default_rng(2), rate)
            assert mutants.shape == parents.shape
            space.algebra.validate(mutants)
            np.testing.assert_array_equal(space.canonical(mutants), mutants)
        np.testing.assert_array_equal(parents, self._rows(space), err_msg="mutate changed its argument")

    def test_mutation_at_rate_zero_is_identity(self, space: SearchSpace) -> None:
        parents = self._rows(space)
        np.testing.assert_array_equal(space.mutate(parents, np.random.default_rng(2), 0.0), parents)

    def test_mutation_is_deterministic(self, space: SearchSpace) -> None:
        parents = self._rows(space)
        first, second, other = (space.mutate(parents, np.random.default_rng(seed), 0.3) for seed in (3, 3, 4))
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, other)

    def test_mutation_changes_what_it_is_asked_to(self, space: SearchSpace) -> None:
        parents = space.sample(2_000, np.random.default_rng(0))
        free = [gene for gene, decision in enumerate(space.decisions) if not decision.active_when]
        free = [gene for gene in free if len(space.decisions[gene].choices) > 1]
        changed = space.mutate(parents, np.random.default_rng(2), 0.2)[:, free] != parents[:, free]
        assert 0.1 < changed.mean() < 0.3, f"rate 0.2 changes {changed.mean():.2f} of the genes"

    def test_mutation_reaches_every_choice(self, space: SearchSpace) -> None:
        parents = np.repeat(self._rows(space)[:1], 5_000, axis=0)
        mutants = space.mutate(parents, np.random.default_rng(2), 0.5)
        active = space.algebra.active(mutants)
        for gene, decision in enumerate(space.decisions):
            reached = set(mutants[active[:, gene], gene].tolist())
            assert reached == set(range(len(decision.choices))), f"{decision.name} is never all of its choices"

    @pytest.mark.parametrize("rate", [-0.1, 1.5])
    def test_mutation_refuses_rates_that_are_none(self, space: SearchSpace, rate: float) -> None:
        with pytest.raises(SpaceError):
            space.mutate(self._rows(space), np.random.default_rng(2), rate)

    def test_crossover_takes_each_gene_from_a_parent(self, space: SearchSpace) -> None:
        mothers, fathers = self._rows(space, seed=7), self._rows(space, seed=8)
        children = space.crossover(mothers, fathers, np.random.default_rng(9))
        space.algebra.validate(children)
        np.testing.assert_array_equal(space.canonical(children), children)
        inherited = (children == mothers) | (children == fathers)
        inactive = ~space.algebra.active(children)
        if type(space).repair is SearchSpace.repair:
            assert (inherited | inactive).all()
        differ = (mothers != fathers) & space.algebra.active(children)
        from_mother = (children == mothers)[differ].mean()
        assert 0.3 < from_mother < 0.7, f"{from_mother:.2f} of the genes come from the first parent"

    def test_crossover_is_deterministic(self, space: SearchSpace) -> None:
        mothers, fathers = self._rows(space, seed=7), self._rows(space, seed=8)
        first, second, other = (space.crossover(mothers, fathers, np.random.default_rng(seed)) for seed in (3, 3, 4))
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, other)

    def test_crossover_of_a_row_with_itself_is_that_row(self, space: SearchSpace) -> None:
        rows = self._rows(space)
        np.testing.assert_array_equal(space.crossover(rows, rows, np.random.default_rng(3)), rows)

    # ---- Names -----------------------------------------------------------------------------

    def test_config_survives_json(self, space: SearchSpace) -> None:
        for row in self._rows(space)[:50]:
            config = json.loads(json.dumps(space.config(row)))
            np.testing.assert_array_equal(space.genotype(config), row)

    def test_equal_rows_are_equal_configs_and_keys(self, space: SearchSpace) -> None:
        rows = np.unique(self._rows(space), axis=0)
        keys = space.keys(rows)
        configs = [json.dumps(space.config(row), sort_keys=True) for row in rows]
        assert len(set(keys)) == len(set(configs)) == len(rows)
        assert space.keys(rows.copy()) == keys

    def test_key_leads_back_to_the_row(self, space: SearchSpace) -> None:
        for row, key in zip(self._rows(space)[:50], space.keys(self._rows(space)[:50]), strict=True):
            np.testing.assert_array_equal(space.algebra.from_key(key), row)

    def test_bad_configs_are_refused(self, space: SearchSpace) -> None:
        config = space.config(self._rows(space)[0])
        name = next(iter(config))
        without = {key: value for key, value in config.items() if key != name}
        for bad in ({**config, "no such decision": 1}, {**config, name: "no such choice"}, without):
            with pytest.raises(SpaceError):
                space.genotype(bad)

    def test_bad_rows_are_refused(self, space: SearchSpace) -> None:
        rows = self._rows(space)[:2]
        for bad in (rows[:, :-1], rows.astype(float), rows - 100, rows[0]):
            with pytest.raises(SpaceError):
                space.algebra.validate(bad)

    def test_function_keys_never_split_a_row(self, space: SearchSpace) -> None:
        rows = self._rows(space)[:50]
        before = rows.copy()
        assert space.function_keys(np.concatenate([rows, rows])) == 2 * space.function_keys(rows)
        np.testing.assert_array_equal(rows, before, err_msg="function_keys changed its argument")

    def test_named_networks_are_in_the_space(self, space: SearchSpace) -> None:
        for name, config in space.named.items():
            row = space.named_genotype(name)
            assert space.config(row) == dict(config), f"{name} is not a canonical config"
        with pytest.raises(SpaceError):
            space.named_genotype("no such network")

    # ---- The space as a whole ---------------------------------------------------------------

    def test_spec_makes_an_equal_space(self, space: SearchSpace) -> None:
        spec = json.loads(json.dumps(space.spec()))
        again = space_from_spec(spec)
        assert type(again) is type(space)
        assert again.spec() == space.spec()
        assert again.workload == space.workload
        assert [(d.name, d.choices, dict(d.active_when)) for d in again.decisions] == [
            (d.name, d.choices, dict(d.active_when)) for d in space.decisions
        ]
        rows = self._rows(space)
        np.testing.assert_array_equal(again.encode(rows), space.encode(rows))
        for name, column in space.costs(rows).columns().items():
            np.testing.assert_array_equal(again.costs(rows).columns()[name], column, err_msg=name)

    def test_size_bounds_the_samples(self, space: SearchSpace) -> None:
        if space.log10_size < 4.3:
            rows = space.enumerate()
            assert len(rows) == round(10**space.log10_size)
            assert len(np.unique(rows, axis=0)) == len(rows)
            np.testing.assert_array_equal(space.canonical(rows), rows)
        distinct = len(np.unique(self._rows(space), axis=0))
        assert distinct <= round(10 ** min(space.log10_size, 6))

    def test_describe_is_json(self, space: SearchSpace) -> None:
        described = json.loads(json.dumps(space.describe()))
        assert described["name"] == space.name
        space.genotype(described["example"]["config"])

    # ---- Features and costs ------------------------------------------------------------------

    def test_features_are_finite_and_named(self, space: SearchSpace) -> None:
        rows = self._rows(space)
        features = space.encode(rows)
        assert features.shape == (len(rows), len(space.feature_names))
        assert features.dtype == np.float32
        assert np.isfinite(features).all()
        assert len(set(space.feature_names)) == len(space.feature_names)

    def test_features_have_units(self, space: SearchSpace) -> None:
        units = space.feature_units
        assert units.shape == (len(space.feature_names),), "not one unit a feature"
        assert (np.isfinite(units) & (units > 0)).all(), "a unit is not positive"

    def test_features_depend_on_the_row_alone(self, space: SearchSpace) -> None:
        rows = self._rows(space)
        shuffled = np.random.default_rng(4).permutation(len(rows))
        np.testing.assert_array_equal(space.encode(rows)[shuffled], space.encode(rows[shuffled]))
        np.testing.assert_array_equal(space.encode(rows)[:1], space.encode(rows[:1]))

    def test_features_tell_architectures_apart(self, space: SearchSpace) -> None:
        features = space.encode(self._rows(space))
        assert len(np.unique(features, axis=0)) > 1

    def test_additive_encoding_equals_encode(self, space: SearchSpace) -> None:
        encoding = space.additive_encoding()
        if encoding is None:
            pytest.skip("this space's features are not sums of tables")
        rows = self._rows(space)
        features = space.encode(rows)
        np.testing.assert_allclose(encoding.encode(rows), features, rtol=1e-5, atol=1e-5)
        tables = sum(table[codes] for table, codes in zip(encoding.tables, encoding.codes(rows).T, strict=True))
        np.testing.assert_allclose(encoding.bias + tables, features, rtol=1e-5, atol=1e-5)
        weights = np.linspace(0.5, 1.5, len(space.feature_names))
        expected = features.astype(np.float64) @ weights
        np.testing.assert_allclose(encoding.fold(weights).sum(rows), expected, rtol=1e-4, atol=1e-4)

    def test_features_equal_the_graphs(self, space: SearchSpace) -> None:
        """Columns of ``encode`` that are named like a feature of the executed graph are that
        feature, up to a factor and what all architectures share."""
        rows = self._rows(space)[: max(self.models, 5)]
        from ..search_spaces.operations_torch import module_operations

        modules = [space.build(space.config(row)) for row in rows]
        graphs = [features(executed(module_operations(module, space.workload.input_shape))) for module in modules]
        known = {name for graph in graphs for name in graph} | set(GRAPH_FEATURES)
        encoded = space.encode(rows)
        for column, name in enumerate(space.feature_names):
            if name not in known:
                continue
            counted = np.array([graph.get(name, 0.0) for graph in graphs])
            line = np.stack([encoded[:, column].astype(np.float64), np.ones(len(rows))], axis=1)
            fitted = line @ np.linalg.lstsq(line, counted, rcond=None)[0]
            np.testing.assert_allclose(fitted, counted, rtol=1e-4, atol=1e-6 * counted.max(), err_msg=name)

    def test_costs_are_positive_columns(self, space: SearchSpace) -> None:
        rows = self._rows(space)
        for name, column in space.costs(rows).columns().items():
            assert column.shape == (len(rows),), name
            assert column.dtype == np.float64, name
            assert np.isfinite(column).all(), name
            assert (column >= 0).all(), name
            np.testing.assert_array_equal(space.costs(rows[:3]).columns()[name], column[:3], err_msg=name)

    def test_costs_equal_an_independent_count(self, space: SearchSpace) -> None:
        from ..search_spaces.graph_costs import module_costs

        rows = self._rows(space)[: self.models]
        columns = space.costs(rows).columns()
        for index, row in enumerate(rows):
            counted = module_costs(space.build(space.config(row)), space.workload.input_shape)
            for name in self.counted_costs:
                assert columns[name][index] == counted[name], f"{name} of {space.config(row)}"

    def test_macs_equal_torchs_flop_counter(self, space: SearchSpace) -> None:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        rows = self._rows(space)[: self.models]
        macs = space.costs(rows).macs
        for index, row in enumerate(rows):
            model = space.build(space.config(row)).eval().to("meta")
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model(torch.empty(1, *space.workload.input_shape, device="meta"))
            assert counter.get_total_flops() == 2 * macs[index], f"macs of {space.config(row)}"

    def test_parameters_equal_the_modules(self, space: SearchSpace) -> None:
        rows = self._rows(space)[: self.models]
        for expected, row in zip(space.costs(rows).parameters, rows, strict=True):
            model = space.build(space.config(row))
            assert sum(p.numel() for p in model.parameters()) == expected, f"parameters of {space.config(row)}"

    # ---- Models ------------------------------------------------------------------------------

    def test_models_run_at_two_batch_sizes(self, space: SearchSpace) -> None:
        import torch

        for row in self._rows(space)[: self.models]:
            model = space.build(space.config(row)).eval()
            x = self.inputs(space, 2)
            with torch.no_grad():
                both, single = model(*x), model(*(part[:1] for part in x))
            assert both.shape[0] == 2
            assert single.shape[0] == 1
            if self.classes is not None:
                assert both.shape == (2, self.classes)
            assert torch.isfinite(both).all()
            torch.testing.assert_close(both[:1], single, rtol=1e-3, atol=1e-4)

    def test_models_are_deterministic_under_a_seed(self, space: SearchSpace) -> None:
        import torch

        config = space.config(self._rows(space)[0])
        models: list[nn.Module] = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            models.append(space.build(config).eval())
        with torch.no_grad():
            first, second, other = (model(*self.inputs(space, 2)) for model in models)
        assert torch.equal(first, second)
        assert not torch.equal(first, other)

    def test_models_learn(self, space: SearchSpace) -> None:
        """The loss reaches the parameters with finite gradients, not all zero."""
        import torch

        for row in self._rows(space)[: self.models]:
            model = space.build(space.config(row)).train()
            output = model(*self.inputs(space, 4))
            output.square().mean().backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            assert gradients
            assert all(torch.isfinite(gradient).all() for gradient in gradients)
            assert any((gradient != 0).any() for gradient in gradients)

    def test_bad_configs_are_not_built(self, space: SearchSpace) -> None:
        with pytest.raises(SpaceError):
            space.build({"no such decision": 1})

    def test_deployable_carries_its_identity(self, space: SearchSpace) -> None:
        row = self._rows(space)[0]
        deployable = space.deployable(space.config(row))
        assert deployable.architecture is not None
        assert deployable.architecture.key == space.keys(row[None])[0]
        assert deployable.architecture.space == space.spec()
        assert deployable.workload == space.workload
        assert {call.graph for call in deployable.plan} <= set(deployable.graphs)
        other = space.deployable(space.config(space.mutate(row[None], np.random.default_rng(0), 1.0)[0]))
        assert other.id != deployable.id
        assert space.deployable(space.config(row)).id == deployable.id

    def test_deployable_graph_runs(self, space: SearchSpace) -> None:
        import torch

        deployable = space.deployable(space.config(self._rows(space)[0]))
        for graph in deployable.graphs.values():
            assert graph.module is not None
            inputs = [torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in graph.inputs]
            with torch.no_grad():
                outputs = graph.module().eval()(*inputs)
            outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
            assert len(outputs) == len(graph.outputs)

    def test_quick_export_answers_like_torch(self, space: SearchSpace) -> None:
        """The file that latencies are measured on, at two batch sizes, with batch norm off its initial state."""
        import torch
        from onnxruntime import InferenceSession

        from ..export.direct import EXPORTER, to_onnx_quickly

        for row in self._rows(space)[: self.models if self.exported_directly else 1]:
            graph = space.deployable(space.config(row)).graphs["main"]
            assert graph.module is not None
            model = graph.module().train()
            with torch.no_grad():
                model(_images(space, 4))
            proto = to_onnx_quickly(model.eval(), graph.inputs, graph.outputs)
            writer = {p.key: p.value for p in proto.metadata_props}[EXPORTER]
            assert writer == "gnomon.export.direct" or not self.exported_directly, (
                f"{writer}: seconds a model; exported_directly = False accepts that"
            )
            session = InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
            for batch in (1, 3):
                x = _images(space, batch)[:, :, : graph.inputs[0].shape[2], : graph.inputs[0].shape[3]]
                found = session.run(None, {graph.inputs[0].name: x.numpy()})[0]
                with torch.no_grad():
                    expected = model(x)
                scale = float(expected.abs().max())
                torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5 * scale)

    def inputs(self, space: SearchSpace, batch: int) -> tuple[torch.Tensor, ...]:
        """Arguments of the models' ``forward``; by default random images."""
        return (_images(space, batch),)

    def _rows(self, space: SearchSpace, seed: int = 0) -> Genotypes:
        return space.sample(self.population, np.random.default_rng(seed))


def _images(space: SearchSpace, batch: int) -> torch.Tensor:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, *space.workload.input_shape, generator=generator)
