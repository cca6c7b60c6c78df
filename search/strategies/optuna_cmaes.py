"""CMA-ES through Optuna, its optimiser restored by replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ...search_spaces import Decision
from .optuna_sampler import OptunaStrategy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from optuna.distributions import BaseDistribution
    from optuna.study import Study

OPTIMIZER = ":optimizer:"
"""In the names of the trial attributes where Optuna keeps the pickled optimiser."""


class OptunaCmaEs(OptunaStrategy):
    """CMA-ES (Hansen 2016, 1604.00772) on choice indices, by ``optuna.samplers.CmaEsSampler``.

    CMA-ES knows numbers only, so every decision is an integer to it, ordered or not: it suits
    spaces whose decisions are mostly ordered. It optimises one value and ignores constraints, so
    the objective must weigh latency itself, as MnasNet's rewards do.

    Optuna keeps the optimiser as a pickle in trial attributes. Nothing pickled goes into the
    ledger: the optimiser is a function of the generations it was told, and each step tells them
    again, in memory.

    Args:
        arguments: Of ``CmaEsSampler``, other than ``seed``.
    """

    name: ClassVar[str] = "cmaes"
    max_objectives: ClassVar[int | None] = 1
    forgotten: ClassVar[tuple[str, ...]] = ("cma:optimizer:", "sepcma:optimizer:", "cmawm:optimizer:")

    def __init__(self, arguments: Mapping[str, Any] | None = None) -> None:
        super().__init__("CmaEsSampler", arguments, copies=True)

    def settings(self) -> dict[str, Any]:
        return {"arguments": self.arguments}

    def distribution(self, decision: Decision) -> BaseDistribution:
        """An integer, whether ordered or not."""
        from optuna.distributions import IntDistribution

        return IntDistribution(0, len(decision.choices) - 1)

    def prepare(self, study: Study, distributions: dict[str, BaseDistribution]) -> None:
        """Lets the sampler tell its optimiser each finished generation in turn.

        An ask tells at most one generation and leaves the optimiser on the trial asked for, where
        the sampler looks for it only once that trial is complete; so it is handed on as a complete
        trial of no generation.
        """
        from optuna.trial import TrialState, create_trial

        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        for _ in range(len(complete)):
            asked = study.ask(distributions)
            left = study._storage.get_trial_system_attrs(asked._trial_id)
            optimizer = {key: value for key, value in left.items() if OPTIMIZER in key}
            study.tell(asked, state=TrialState.FAIL)
            if not optimizer:
                return
            carrier = complete[-1]
            study.add_trial(
                create_trial(
                    params=carrier.params,
                    distributions=carrier.distributions,
                    value=carrier.value,
                    system_attrs=optimizer,
                )
            )
