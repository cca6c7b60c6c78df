"""Costs and features of a user's model's sub-networks as look-up tables, from one trace of the given model.

What an operation costs depends on the channels that it reads and writes and on its kernel; whether it is there, on
how many blocks of its run are kept. So each needs a small table only, and a network's sums are sums of look-ups.
Only memory does not add up: for each combination of depths, the buffers that live together are listed once, and
their sizes are linear in the channels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .additive import AdditiveEncoding
from .algebra import Genotypes
from .costs import Costs
from .graph_costs import FLOAT_BYTES, layer_costs, live_buffers
from .graph_encoded import COUNTED, GRAPH_FEATURES
from .operations import CONSTANT, VIEW, Operation, OperationGraph, features
from .operations_torch import node_operation
from .own_model_graph import FUSED, RUNS, Depths, GivenGraph

if TYPE_CHECKING:
    from .own_model import OwnModel

FloatArray: TypeAlias = npt.NDArray[np.float64]
Genes: TypeAlias = Mapping[int, int]
"""Choice indices by column of the genotype."""

FEATURES = tuple(name for name in GRAPH_FEATURES if not name.startswith("path_"))
"""Columns of ``encode``: those of graphs that add up over operations."""
SUMS = (*(f"live {n}" for n in FEATURES), *(f"built {n}" for n in COUNTED), *(f"live {n}" for n in COUNTED),
        "parameters", "macs", "cio")  # fmt: skip
"""What the tables hold."""
_COUNTS = slice(len(FEATURES), len(FEATURES) + 2 * len(COUNTED))
_COSTS = slice(_COUNTS.stop, len(SUMS))
_LARGEST_MERGED = 1024


class OwnModelTables:
    """Tables of all decisions of a space; made once.

    Args:
        space: Its decisions are depths, widths and kernels of its parts.
    """

    def __init__(self, space: OwnModel) -> None:
        import torch

        from .own_model_elastic import elastic_modules

        model = copy.deepcopy(space.given()).to("meta")
        self._parts, self._decisions = space.parts, space.decisions
        self._column = {decision.name: column for column, decision in enumerate(space.decisions)}
        self._given = GivenGraph(model, space.workload.input_shape, space.parts)
        with torch.device("meta"):  # Nothing is computed.
            self._elastic = elastic_modules(model, space.parts, space.sharing)
        self._depth_columns = [self._column[f"{run[0]}.depth"] for run in space.parts.runs]
        self._width_of = {value: width for width in space.parts.widths for value in width.values}
        self._states: dict[tuple[tuple[int, int], ...], dict[str, str]] = {}
        self._peaks: dict[tuple[int, ...], tuple[FloatArray, FloatArray]] = {}
        bias, tables = self._merged([*self._operation_tables(), *self._parameter_tables(model)])
        groups = tuple(tables)
        radices = tuple(tuple(len(self._decisions[column].choices) for column in group) for group in groups)
        self._bias, self._tables = bias, tuple(tables.values())
        used = [i for i in range(len(FEATURES)) if bias[i] or any(table[:, i].any() for table in self._tables)]
        self.feature_names = tuple(FEATURES[i] for i in used)

        def encoding(columns: Any) -> AdditiveEncoding:
            chosen = tuple(np.ascontiguousarray(table[:, columns], dtype=np.float32) for table in self._tables)
            return AdditiveEncoding(groups, radices, chosen, bias[columns].astype(np.float32))

        self.encoding, self.counts = encoding(used), encoding(_COUNTS)

    def look_up(self, genotypes: Genotypes) -> Costs:
        """Costs of canonical rows ``(N, D)``."""
        sums = np.repeat(self._bias[_COSTS, None], len(genotypes), axis=1)
        tables = [np.ascontiguousarray(table[:, _COSTS].T) for table in self._tables]
        for rows, codes in self.encoding.iter_codes(genotypes):
            for code, table in zip(codes, tables, strict=True):
                sums[:, rows] += table[:, code]
        parameters, macs, cio = sums
        return Costs(parameters, macs, cio, FLOAT_BYTES * self._peak_elements(genotypes))

    def execution_counts(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """Counts ``(N, 2, K)`` as built and as executed."""
        return self.counts.encode(genotypes).reshape(len(genotypes), 2, len(COUNTED))

    # ---- Sums -------------------------------------------------------------------------------

    def _operation_tables(self) -> Iterator[tuple[tuple[int, ...], FloatArray]]:
        """The columns of the genotype that matter to each operation, and its sums for each of their combinations."""
        deciding = self._given.deciding_runs()
        for node in self._given.graph.nodes:
            if node.name not in deciding:
                continue
            values = [value for value in (*node.all_input_nodes, node) if value in self._given.shapes]
            sizes = {self._width_column(value.name) for value in values} | {self._kernel_column(node)}
            size_columns = tuple(sorted(column for column in sizes if column is not None))
            runs = sorted(deciding[node.name])
            columns = tuple(sorted({*size_columns, *(self._depth_columns[run] for run in runs)}))
            by_size = {genes: self._sums(node, dict(zip(size_columns, genes, strict=True))) for genes in
                       product(*(range(len(self._decisions[column].choices)) for column in size_columns))}  # fmt: skip
            rows = []
            for genes in self._combinations(columns):
                depths = {run: genes[self._depth_columns[run]] for run in runs}
                rows.append(self._at(node.name, depths, by_size[tuple(genes[c] for c in size_columns)]))
            yield columns, np.array(rows)

    def _at(self, name: str, depths: Depths, by_state: Mapping[str, FloatArray]) -> FloatArray:
        block = self._given.block_of(name)
        if block is not None and not block.is_kept(depths):
            return np.zeros(len(SUMS))
        key = tuple(sorted(depths.items()))
        if key not in self._states:
            self._states[key] = self._given.states(depths)
        return by_state[self._states[key].get(name, "")]

    def _sums(self, node: Any, genes: Genes) -> dict[str, FloatArray]:
        """An operation's sums at these sizes where it runs, is fused, or executed by no runtime (``""``)."""
        shapes = {value: self._resized(value, genes) for value in (*node.all_input_nodes, node)
                  if value in self._given.shapes}  # fmt: skip
        modules, cost = {}, (0.0, 0.0)
        if node.op == "call_module":
            module = self._module(str(node.target), genes)
            modules[str(node.target)] = module
            cost = layer_costs(module, shapes[node.args[0]], shapes[node])
        operation = node_operation(node, modules, shapes)
        found = _found(operation)
        built = {f"built {name}": found.get(name, 0.0) for name in COUNTED} | {"macs": cost[0], "cio": cost[1]}
        fused = {"live parameters": float(operation.parameters)}
        runs = {f"live {name}": value for name, value in found.items()}
        return {"": _row(built), FUSED: _row(built | fused), RUNS: _row(built | runs)}

    def _parameter_tables(self, model: Any) -> Iterator[tuple[tuple[int, ...], FloatArray]]:
        """Trainable parameters, also of what the graph does not show."""
        for path, module in self._elastic.items():
            width = [w for w in self._parts.widths if path in (*w.writers, *w.through, *w.readers)]
            columns = {self._column.get(f"{w.name}.width") for w in width} | {self._column.get(f"{path}.kernel")}
            yield self._kept_parameters((path,), tuple(c for c in columns if c is not None), module)
        holders: dict[int, list[str]] = {}
        tensors = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            path = name.rpartition(".")[0]
            if parameter.requires_grad and path not in self._elastic:
                holders.setdefault(id(parameter), []).append(path)
                tensors[id(parameter)] = parameter
        for key, paths in holders.items():
            yield self._kept_parameters(tuple(paths), (), tensors[key])

    def _kept_parameters(
        self, paths: Sequence[str], size_columns: Sequence[int], held: Any
    ) -> tuple[tuple[int, ...], FloatArray]:
        """The parameters of a module or tensor, as long as one of the paths at which it is held is kept."""
        blocks = [self._given.block_around(path) for path in paths]
        runs = set() if None in blocks else {block.run for block in blocks if block is not None}
        columns = tuple(sorted({*size_columns, *(self._depth_columns[run] for run in runs)}))
        rows = []
        for genes in self._combinations(columns):
            depths = {run: genes[self._depth_columns[run]] for run in runs}
            kept = any(block is None or block.is_kept(depths) for block in blocks)
            rows.append(_row({"parameters": self._size(paths[0], held, genes) if kept else 0.0}))
        return columns, np.array(rows)

    def _size(self, path: str, held: Any, genes: Genes) -> float:
        if path not in self._elastic:
            return float(held.numel())
        return float(sum(p.numel() for p in self._module(path, genes).parameters() if p.requires_grad))

    def _module(self, path: str, genes: Genes) -> Any:
        """The module at a path in the sizes of these genes, largest elsewhere; on the meta device."""
        from .own_model_elastic import resize

        if path not in self._elastic:
            return self._given.modules[path]
        config = {self._decisions[column].name: self._decisions[column].choices[gene] for column, gene in genes.items()}
        resize({path: self._elastic[path]}, self._parts, config)
        return self._elastic[path].extract()

    # ---- Memory -----------------------------------------------------------------------------

    def _peak_elements(self, genotypes: Genotypes) -> FloatArray:
        peaks = np.empty(len(genotypes))
        channels = np.stack(
            [
                np.array(self._decisions[c].choices, dtype=np.float64)[genotypes[:, c]] / width.channels
                if (c := self._column.get(f"{width.name}.width")) is not None
                else np.ones(len(genotypes))
                for width in self._parts.widths
            ]
            or [np.ones(len(genotypes))]
        )
        radices = tuple(len(self._decisions[column].choices) for column in self._depth_columns)
        codes = np.zeros(len(genotypes), dtype=np.int64)
        for column, radix in zip(self._depth_columns, radices, strict=True):
            codes = codes * radix + genotypes[:, column]
        order = np.argsort(codes, kind="stable")
        found, starts = np.unique(codes[order], return_index=True)
        for code, rows in zip(found.tolist(), np.split(order, starts[1:]), strict=False):
            depths = tuple(int(depth) for depth in np.unravel_index(code, radices)) if radices else ()
            if depths not in self._peaks:
                self._peaks[depths] = self._live_elements(dict(enumerate(depths)))
            always, by_width = self._peaks[depths]
            peaks[rows] = (always[:, None] + by_width @ channels[:, rows]).max(axis=0)
        return peaks

    def _live_elements(self, depths: Depths) -> tuple[FloatArray, FloatArray]:
        """For each operation, the live elements that no width changes ``(M,)``, and the others by width ``(M, W)``."""
        graph, shapes, names = self._given.contracted(depths)
        index = {width.name: i for i, width in enumerate(self._parts.widths)}
        found = set()
        for buffers in live_buffers(graph, self._given.modules, shapes):
            sums = [0.0] * (1 + max(1, len(index)))
            for node in buffers:
                width = self._width_of.get(names[node])
                sums[0 if width is None else 1 + index[width.name]] += prod(shapes[node])
            found.add(tuple(sums))
        rows = np.array(sorted(found))
        # Channels are parts of the given ones: what is less than another row at any of them is never the peak.
        above = rows[:, None, 0] - rows[None, :, 0] + np.maximum(rows[:, None, 1:] - rows[None, :, 1:], 0).sum(axis=2)
        np.fill_diagonal(above, 1)
        rows = rows[(above > 0).all(axis=1)]
        return rows[:, 0], rows[:, 1:]

    # ---- Columns ----------------------------------------------------------------------------

    def _width_column(self, value: str) -> int | None:
        width = self._width_of.get(value)
        return None if width is None else self._column.get(f"{width.name}.width")

    def _kernel_column(self, node: Any) -> int | None:
        return self._column.get(f"{node.target}.kernel") if node.op == "call_module" else None

    def _resized(self, value: Any, genes: Genes) -> tuple[int, ...]:
        shape: tuple[int, ...] = self._given.shapes[value]
        column = self._width_column(value.name)
        if column is None:
            return shape
        return (shape[0], int(self._decisions[column].choices[genes[column]]), *shape[2:])

    def _combinations(self, columns: Sequence[int]) -> Iterator[dict[int, int]]:
        for genes in product(*(range(len(self._decisions[column].choices)) for column in columns)):
            yield dict(zip(columns, genes, strict=True))

    def _merged(
        self, tables: Sequence[tuple[tuple[int, ...], FloatArray]]
    ) -> tuple[FloatArray, dict[tuple[int, ...], FloatArray]]:
        """The sum of what no decision changes, and few tables in the place of many, each larger."""
        radix = [len(decision.choices) for decision in self._decisions]
        merged: dict[tuple[int, ...], FloatArray] = {}
        bias = np.zeros(len(SUMS))
        for columns, table in sorted(tables, key=lambda pair: -len(pair[0])):
            if not columns:
                bias += table[0]
                continue
            host = next((group for group in merged if set(columns) <= set(group)), None)
            if host is None:
                host = next((g for g in merged if prod(radix[c] for c in {*g, *columns}) <= _LARGEST_MERGED), None)
                union = tuple(sorted({*(host or ()), *columns}))
                before = np.zeros((prod(radix[c] for c in union), len(SUMS)))
                if host is not None:
                    before += _spread(merged.pop(host), host, union, radix)
                merged[union], host = before, union
            merged[host] += _spread(table, columns, host, radix)
        return bias, merged


def _spread(table: FloatArray, columns: Sequence[int], group: Sequence[int], radix: Sequence[int]) -> FloatArray:
    """A table for the combinations of ``group``, of which ``columns`` are some."""
    codes = np.unravel_index(np.arange(prod(radix[c] for c in group)), tuple(radix[c] for c in group))
    genes = dict(zip(group, codes, strict=True))
    return table[np.ravel_multi_index([genes[c] for c in columns], tuple(radix[c] for c in columns))]


def _found(operation: Operation) -> dict[str, float]:
    if operation.kind in (VIEW, CONSTANT):
        return {}
    return features(OperationGraph((operation,), (operation.name,)))


def _row(values: Mapping[str, float]) -> FloatArray:
    return np.array([values.get(name, 0.0) for name in SUMS])
