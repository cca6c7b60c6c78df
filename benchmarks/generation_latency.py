"""Latency of generation through ONNX Runtime, from operators: ``python -m benchmarks.generation_latency``.

A look-up table of single operators is measured on this device, and 30 random hybrids of the space ``hybrid_slm``;
how near the sum of the table comes to a whole model's step, with one thread. Models are put together from operators
that torch's exporter wrote (:mod:`benchmarks._composed`); some hybrids are exported whole, too, to check that.

Metrics, each on the hybrids: ``lut.<figure>``: the sum of the table, no hybrid measured for it. ``exported.lut.*``: the
same on those that were exported whole, ``exported.composed.*``: the composed files against these. ``lut_single.*``: a
table of models with one operator in place of eight. ``lut_between.*``: from the table's other contexts alone, the one
asked for interpolated; ``lut_<context>.*`` at these. ``few_shot.10.*``: the default predictor after ten other hybrids.
``table_10.*``, ``roofline_10.*``, ``kinetics_10.*``, ``macs_10.*``, ``parameters_10.*``: after the same ten, a line
through the table's sum; compute, memory and calls at prices that are found, or at Kinetics'; a line through one cost.
``form.*``: ``p N + q`` of each hybrid, from its other contexts. ``memory.*``: estimated peak memory of a step at the
longest context against the measured, and what a process takes for each byte of weights and of states.
``prefill.lut.*``: time to the first token of ``--prompt`` tokens, by the table.
``operator.<kind>.context_<tokens>_us``: entries of the table at the largest width.

Exports are kept in ``--exports`` and not repeated: remove the folder when a mixer has changed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from benchmarks._common import ROOT, main_with
from benchmarks._composed import ComposedModels
from gnomon.devices import Protocol
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.export.onnx_export import export_deployable
from gnomon.predictors import GnomonPredictor, LatencyPredictor
from gnomon.predictors.evaluate import score
from gnomon.predictors.generation import (
    OperatorTable,
    Phase,
    TablePlan,
    fit_decode,
    peak_bytes,
    state_bytes,
    weight_bytes,
)
from gnomon.predictors.generation.metrics import call_ms
from gnomon.predictors.generation.predictors import OperatorTablePredictor, RooflinePredictor
from gnomon.predictors.generation.roofline import KINETICS_INTENSITY
from gnomon.predictors.generation.table_plan import TableModel
from gnomon.predictors.generation.work import checked_phase
from gnomon.predictors.one_cost import OneCostPredictor
from gnomon.records import Measurement
from gnomon.search_spaces import Deployable, Genotypes, Workload
from gnomon.search_spaces.hybrid_slm.space import HybridSLM
from gnomon.search_spaces.hybrid_slm.specs import LanguageModelSpec

FloatArray = npt.NDArray[np.float64]
Write: TypeAlias = Callable[[Deployable, TableModel, str, Path], None]

WHOLE = "whole "
SEED = 0
HYBRIDS, MEASUREMENTS, EXPORTED = 30, 10, 10
CONTEXT, OTHER_CONTEXTS, PROMPT = 1024, (256, 4096), 512
COPIES = 8
PROTOCOL = Protocol(processes=5, min_processes=3, time_cap_s=0.1, target_interval=0.05)
MIXERS = ("attention", "sliding_window", "mamba2", "deltanet", "gated_deltanet")


def run(options: argparse.Namespace) -> dict[str, float]:
    """Latency of language models' steps: the sum of a table of operators, and predictors from few measurements."""
    torch.set_num_threads(1)
    return _Benchmark(options).run()


def space(context: int, longest: int) -> HybridSLM:
    """The space that is measured: sizes for one core."""
    return HybridSLM(
        vocabulary=512,
        mixers=MIXERS,
        widths=(128, 192, 256),
        head_sizes=(32,),
        kv_heads=(2,),
        windows=(256,),
        ffn_ratios=(2.0,),
        ratios=("0:1", "1:1", "1:2"),
        blocks=(1, 2),
        max_operators=16,
        context=context,
        max_length=longest,
    )


class _Benchmark:
    def __init__(self, options: argparse.Namespace) -> None:
        self.context: int = options.context
        self.prompt: int = options.prompt
        self.contexts = sorted({self.context, *OTHER_CONTEXTS})
        self.files = _Files(options.exports)
        self.space = space(self.context, max(self.contexts))
        count = 6 if options.quick else HYBRIDS
        self.exported = 3 if options.quick else EXPORTED
        rows = np.unique(self.space.sample(4 * count, np.random.default_rng(SEED)), axis=0)
        self.rows = rows[np.random.default_rng(SEED).permutation(len(rows))[:count]]
        chosen = GnomonPredictor(self.space).references(MEASUREMENTS + count, seed=SEED)
        known = set(self.space.keys(self.rows))
        self.references = chosen[[key not in known for key in self.space.keys(chosen)]][:MEASUREMENTS]

    def run(self) -> dict[str, float]:
        steps = self._steps()
        tables = {copies: self._plan(copies).table(steps.values()) for copies in (1, COPIES)}
        found = self._table_figures(tables, steps)
        found |= self._few_shot(tables[COPIES], steps)
        found |= self._closed_forms(steps)
        found |= self._memory(steps)
        found |= self._prefill()
        return found | self._operators(tables[COPIES])

    # ---- What is measured ----------------------------------------------------------------------

    def _steps(self) -> dict[str, Measurement]:
        """All steps by name: table models and hybrids, at every context."""
        models = [model for copies in (1, COPIES) for model in self._plan(copies).models]
        for row in (*self.rows, *self.references):
            models += [self._hybrid(row, context) for context in self.contexts]
        whole = [self._hybrid(row, self.context) for row in self.rows[: self.exported]]
        return self._measured(models, [replace(model, name=f"{WHOLE}{model.name}") for model in whole])

    def _plan(self, copies: int) -> TablePlan:
        return TablePlan.of_models(self._extremes(), {"step": self.contexts}, copies=copies, sparse=True)

    def _extremes(self) -> list[LanguageModelSpec]:
        """Models that have all operators of the hybrids; widths between the ends are interpolated."""
        return [self._spec(row) for row in (*self.rows, *self.references)]

    def _spec(self, row: Genotypes) -> LanguageModelSpec:
        return self.space.spec_of(self.space.config(row))

    def _hybrid(self, row: Genotypes, context: int, phase: Phase = "step") -> TableModel:
        spec = self._spec(row)
        workload = Workload((1,), context=context, phase="step")
        if phase == "prefill":
            workload = Workload((context,), source_length=context, phase="prefill")
        return TableModel(f"{self.space.keys(row[None])[0]} {phase} {context}", spec, workload, part=None)  # type: ignore[arg-type]

    def _measured(self, models: Iterable[TableModel], whole: Iterable[TableModel] = ()) -> dict[str, Measurement]:
        named = {model.name: model for model in models}
        deployables = [self.files.composed(model) for model in named.values()]
        deployables += [self.files.exported(model) for model in whole]
        found = {}
        device = OnnxRuntimeDevice(statistic="minimum")
        start = time.monotonic()
        for measurement in device.measure(deployables, PROTOCOL, seed=SEED):
            if measurement.minimum is None:
                raise SystemExit(f"{measurement.architecture}: {measurement.error}")
            found[measurement.architecture] = measurement
        _say(f"{len(found)} models measured in {time.monotonic() - start:.0f} s")
        return found

    def _latencies(self, rows: Genotypes, found: Mapping[str, Measurement], context: int) -> FloatArray:
        return np.array([call_ms(found[self._hybrid(row, context).name]) for row in rows])

    # ---- What comes of it ----------------------------------------------------------------------

    def _table_figures(self, tables: Mapping[int, OperatorTable], steps: Mapping[str, Measurement]) -> dict[str, float]:
        measured = self._latencies(self.rows, steps, self.context)
        others = tuple(entry for entry in tables[COPIES].entries if entry.length != self.context)
        sums = {
            "lut": self._sums(tables[COPIES], self.context),
            "lut_single": self._sums(tables[1], self.context),
        }
        found = {
            "measured.fastest_ms": float(measured.min()),
            "measured.slowest_ms": float(measured.max()),
            "measured.operators": float(np.mean([len(self._spec(row).operators) for row in self.rows])),
        }
        if self.contexts[0] < self.context < self.contexts[-1]:
            sums["lut_between"] = self._sums(OperatorTable(others), self.context)
        for name, predicted in sums.items():
            found |= _scores(name, predicted, measured)
        whole = np.array([call_ms(steps[name]) for name in steps if name.startswith(WHOLE)])
        found |= _scores("exported.composed", measured[: len(whole)], whole)
        found |= _scores("exported.lut", sums["lut"][: len(whole)], whole)
        for context in self.contexts:
            if context != self.context:
                predicted = self._sums(tables[COPIES], context)
                found |= _scores(f"lut_{context}", predicted, self._latencies(self.rows, steps, context))
        return found

    def _sums(self, table: OperatorTable, length: int, phase: Phase = "step") -> FloatArray:
        return np.array([table.model_ms(self._spec(row), phase, length) for row in self.rows])

    def _few_shot(self, table: OperatorTable, steps: Mapping[str, Measurement]) -> dict[str, float]:
        predictors: dict[str, LatencyPredictor] = {
            f"few_shot.{MEASUREMENTS}": GnomonPredictor(self.space),
            f"table_{MEASUREMENTS}": OperatorTablePredictor(self.space, table),
            f"roofline_{MEASUREMENTS}": RooflinePredictor(self.space),
            f"kinetics_{MEASUREMENTS}": RooflinePredictor(self.space, intensity=KINETICS_INTENSITY),
            f"macs_{MEASUREMENTS}": OneCostPredictor(self.space, cost="macs"),
            f"parameters_{MEASUREMENTS}": OneCostPredictor(self.space, cost="parameters"),
        }
        latencies = self._latencies(self.references, steps, self.context)
        measured = self._latencies(self.rows, steps, self.context)
        found = {}
        for name, predictor in predictors.items():
            mean, deviation = predictor.adapt(self.references, latencies).predict(self.rows)
            found |= _scores(name, mean, measured, deviation)
        return found

    def _closed_forms(self, steps: Mapping[str, Measurement]) -> dict[str, float]:
        others = [context for context in self.contexts if context != self.context]
        by_context = np.stack([self._latencies(self.rows, steps, context) for context in others], axis=1)
        predicted = np.array([float(fit_decode(others, row.tolist())(self.context)) for row in by_context])
        return _scores("form", predicted, self._latencies(self.rows, steps, self.context))

    def _memory(self, steps: Mapping[str, Measurement]) -> dict[str, float]:
        """The process without a model is the smallest base's peak less its estimate."""
        longest = max(self.contexts)
        base = next(model for model in self._plan(COPIES).models if not model.spec.operators)
        runtime = float(steps[base.name].peak_memory_bytes or 0) - peak_bytes(base.spec, "step", longest)
        estimated = np.array([runtime + peak_bytes(self._spec(row), "step", longest) for row in self.rows])
        peaks = [steps[self._hybrid(row, longest).name].peak_memory_bytes for row in self.rows]
        if any(peak is None for peak in peaks):
            return {}
        measured = np.array(peaks, dtype=np.float64)
        parts = [(weight_bytes(s), state_bytes(s, longest), 1.0) for s in map(self._spec, self.rows)]
        weights, states, _ = np.linalg.lstsq(np.array(parts), measured, rcond=None)[0]
        return {
            **_scores("memory", estimated, measured),
            "memory.bytes_per_weight_byte": float(weights),
            "memory.bytes_per_state_byte": float(states),
        }

    def _prefill(self) -> dict[str, float]:
        """Time to the first token."""
        plan = TablePlan.of_models(self._extremes(), {"prefill": (self.prompt,)}, copies=COPIES, sparse=True)
        hybrids = [self._hybrid(row, self.prompt, "prefill") for row in self.rows]
        found = self._measured((*plan.models, *hybrids))
        measured = np.array([call_ms(found[hybrid.name]) for hybrid in hybrids])
        table = plan.table(found.values())
        return {
            **_scores("prefill.lut", self._sums(table, self.prompt, "prefill"), measured),
            "prefill.fastest_ms": float(measured.min()),
            "prefill.slowest_ms": float(measured.max()),
        }

    def _operators(self, table: OperatorTable) -> dict[str, float]:
        """Of the widest hybrid's width, in microseconds."""
        width = max(entry.part.sizes[0] for entry in table.entries)
        found = {}
        for row in self.rows:
            for operator in self._spec(row).operators:
                if operator.sizes.width != width:
                    continue
                for context in self.contexts:
                    name = f"operator.{operator.kind}.context_{context}_us"
                    found[name] = 1e3 * table.operator_ms(operator, "step", context)
        return found


class _Files:
    """ONNX files of models, by what they are; a length is free in a file, so that one serves all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer = ComposedModels(folder / "operators", _say)

    def composed(self, model: TableModel) -> Deployable:
        """Put together from exported operators."""
        made = model.deployable()
        return self._with_files(made, model, "composed", self._compose)

    def exported(self, model: TableModel) -> Deployable:
        """By torch's exporter."""
        made = model.deployable()
        return self._with_files(made, model, "exported", self._export)

    def _with_files(self, made: Deployable, model: TableModel, how: str, write: Write) -> Deployable:
        graphs = {}
        for name, graph in made.graphs.items():
            path = self.folder / f"{how}-{name}-{sha256(model.spec.to_json().encode()).hexdigest()[:24]}.onnx"
            if not path.is_file():
                write(made, model, name, path)
            graphs[name] = replace(graph, module=None, onnx_path=path)
        return replace(made, graphs=graphs)

    def _compose(self, made: Deployable, model: TableModel, name: str, path: Path) -> None:
        self.writer.write(model.spec, checked_phase(name), path)

    def _export(self, made: Deployable, model: TableModel, name: str, path: Path) -> None:
        start = time.monotonic()
        part = self.folder / f"partial-{os.getpid()}"
        one = replace(made, graphs={name: made.graphs[name]})
        exported = export_deployable(one, part).graphs[name].onnx_path
        assert exported is not None
        os.replace(exported, path)
        _say(f"{model.name}: exported in {time.monotonic() - start:.0f} s")


def _scores(
    name: str, predicted: FloatArray, measured: FloatArray, deviation: FloatArray | None = None
) -> dict[str, float]:
    scores = score(predicted, 0.1 * predicted if deviation is None else deviation, measured, 0)
    found = {"mape": scores.mape, "spearman": scores.spearman, "within_10": scores.within_10_percent}
    if deviation is not None:
        found["coverage_90"] = scores.coverage_90
    else:
        found["bias"] = float((predicted / measured).mean() - 1.0)
    return {f"{name}.{figure}": value for figure, value in found.items()}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """The options of this benchmark."""
    made = argparse.ArgumentParser(description=run.__doc__)
    made.add_argument("--context", type=int, default=CONTEXT, help="tokens before the step")
    made.add_argument("--prompt", type=int, default=PROMPT, help="tokens of the prefill")
    made.add_argument(
        "--exports", type=Path, default=ROOT / "build" / "generation_latency", help="where exports are kept"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark from the command line."""
    main_with("generation_latency", run, parser(), seeds=(SEED,), arguments=arguments)


if __name__ == "__main__":
    main()
