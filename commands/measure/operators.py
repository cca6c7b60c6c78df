"""Measure the operators of language models one by one: a look-up table whose sums are latencies of whole models.

gnomon measure operators space=hybrid_slm to=operators.json
gnomon measure operators space=hybrid_slm 'steps=[1024]' 'prefills=[256,1024]' device.statistic=minimum
gnomon measure operators space=hybrid_slm --plan          which models are measured for it

`gnomon search predictor=operator_table predictor.table=operators.json` predicts from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ...cli import Options
    from ...devices import Device, Protocol
    from ...predictors.generation import OperatorTable, Phase, TablePlan
    from ...search_spaces.hybrid_slm.base import LanguageModelSpace

CONFIG = "measure_operators"
PLANS = True


def run(config: DictConfig, options: Options) -> int:
    """Measures all models of the table together and writes it."""
    from ...search.instantiate import instantiate

    plan, plugins = _plan(config), list(config.plugins)
    if options.plan:
        _print_plan(plan, options)
        return 0
    device: Device = instantiate(config.device, "device", plugins)
    reason = type(device).unavailable()
    if reason is not None:
        raise DeviceError(f"cannot run here: {reason}", field="device", value=device.name)
    protocol: Protocol = instantiate(config.protocol, "protocol", plugins)
    table = plan.measure(device, protocol, seed=config.seed)
    table.save(Path(config.to))
    _print(table, Path(config.to), options)
    return 0


def _plan(config: DictConfig) -> TablePlan:
    """The plan of the space's operators.

    Raises:
        ConfigError: If the space has no language models, or a number is none.
    """
    import numpy as np

    from ...predictors.generation import TablePlan
    from .._values import checked_flag, checked_integer

    n, seed = checked_integer(config.n, "n", 1), checked_integer(config.seed, "seed", 0)
    copies, sparse = checked_integer(config.copies, "copies", 1), checked_flag(config.sparse, "sparse")
    lengths = _lengths(config)
    space = _space(config, max(max(each) for each in lengths.values()))
    configs = [*space.named.values(), *(space.config(row) for row in space.sample(n, np.random.default_rng(seed)))]
    specs = [space.spec_of(each) for each in configs]
    return TablePlan.of_models(specs, lengths, copies=copies, batch=space.workload.batch, sparse=sparse)


def _lengths(config: DictConfig) -> dict[Phase, list[int]]:
    from .._values import checked_integers

    steps, prefills = checked_integers(config.steps, "steps", 0), checked_integers(config.prefills, "prefills", 1)
    if not steps and not prefills:
        raise ConfigError("nothing is measured", field="steps", value=[], allowed="lengths in steps or prefills")
    lengths: dict[Phase, list[int]] = {"step": steps, "prefill": prefills}
    return {phase: of_phase for phase, of_phase in lengths.items() if of_phase}


def _space(config: DictConfig, longest: int) -> LanguageModelSpace:
    """The space, whose models take at least as many tokens as are measured."""
    from ...search.setup import make_space
    from ...search_spaces.hybrid_slm.base import LanguageModelSpace
    from ...search_spaces.hybrid_slm.options import DEFAULT_LENGTH

    node = config.space.copy()
    if "max_length" in node and node.max_length is None:
        node.max_length = max(longest, DEFAULT_LENGTH)
    space = make_space(node, None, list(config.plugins))
    if not isinstance(space, LanguageModelSpace):
        raise ConfigError("not a space of language models", field="space", value=space.name, allowed="hybrid_slm, ...")
    if space.max_length < longest:
        raise ConfigError(
            "shorter than what is measured",
            field="space.max_length",
            value=space.max_length,
            allowed=f"{longest} or more, or smaller steps and prefills",
        )
    return space


def _print_plan(plan: TablePlan, options: Options) -> None:
    models = [model.name for model in plan.models]
    if options.json:
        print(json.dumps({"models": models}))
        return
    print(f"{len(models)} models of {plan.copies} copies of an operator or none:")
    print("\n".join(f"  {name}" for name in models))


def _print(table: OperatorTable, to: Path, options: Options) -> None:
    if options.json:
        print(json.dumps({"table": str(to), "entries": len(table.entries)}))
        return
    for entry in sorted(table.entries, key=lambda entry: (entry.phase, str(entry.part), entry.length)):
        print(f"{entry.phase:8} {entry.length:6} tokens  {1e3 * entry.latency_ms:10.1f} us  {entry.part}")
    print(f"wrote {to}")
