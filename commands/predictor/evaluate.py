"""Score a predictor on devices it has not seen, or an adapted model on your own latencies.

gnomon predictor evaluate split=help_nasbench201 predictor=gnomon samples=10 seeds=3
gnomon predictor evaluate split=help_nasbench201 samples=[3,5,10,20]      accuracy against measurements
gnomon predictor evaluate model=adapted/board from=latencies.csv          your device, your latencies
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ...cli import Options
    from ...predictors import LatencyPredictor
    from ...predictors.protocol import Answers, FewShotProtocol
    from ...records.splits import Round
    from ...reports.predictor_plots import Scatter
    from ...search_spaces import SearchSpace
    from ._scores import Scoreboard

CONFIG = "predictor_evaluate"
PLANS = True
DRAWN_SAMPLES = 10
"""Of several numbers of measurements, the one whose predictions are drawn."""


def run(config: DictConfig, options: Options) -> int:
    """Scores, prints, draws and writes."""
    from ...schema import SCHEMA_KEY, write_json
    from ._scores import SCHEMA

    by_split, by_model = config.get("split") is not None, config.model is not None
    if by_split == by_model or by_model != (config["from"] is not None):
        raise ConfigError(
            "nothing to score", field="split", value=None, allowed="split=NAME, or model=FOLDER with from=FILE"
        )
    found = _score_split(config, options) if by_split else _score_model(config, options)
    if found is None:  # only planned
        return 0
    board, scatters, drawn, to = found
    files = [*board.draw(scatters, drawn, to), to / "scores.json"]
    data = board.to_dict()
    write_json(files[-1], SCHEMA, data)
    if options.json:
        print(json.dumps({SCHEMA_KEY: SCHEMA, **data, "files": [str(path) for path in files]}))
    else:
        board.print()
        print("files: " + ", ".join(str(path) for path in files))
    return 0


Found = tuple["Scoreboard", "list[Scatter]", str, Path]

# ---- A split ----------------------------------------------------------------------------------


def _score_split(config: DictConfig, options: Options) -> Found | None:
    from ...predictors.protocol import FewShotProtocol
    from ...search.instantiate import instantiate
    from ._making import option_name, plain
    from ._pools import chosen_rounds, make_split
    from ._progress import evaluation
    from ._scores import Scoreboard

    samples, seeds = _numbers(config.samples, "samples", 1), _seeds(config.seeds)
    node, option = plain(config.predictor), option_name(config, options)
    if node.get("bundle") is not None:
        raise ConfigError(
            "a split says what to learn from, so nothing may be learnt before",
            field="predictor.bundle",
            value=node["bundle"],
            allowed="null",
        )
    split = make_split(config)
    work = [(chosen, _targets(config, chosen)) for chosen in chosen_rounds(split, config.rounds)]
    n_models = len(seeds) * len(samples) * sum(len(targets) for _, targets in work)
    if options.plan:
        _print_plan(option, split.name, len(seeds) * len(work), n_models, options)
        return None

    def make(space: SearchSpace) -> LatencyPredictor:
        predictor: LatencyPredictor = instantiate(node, "predictor", list(config.plugins), space=space)
        return predictor

    about = {"split": split.name, "predictor": option, "config": node, "score": config.score, "seeds": seeds}
    board = Scoreboard(f"{option} on {split.name}, {config.score} unseen", about)
    drawn = DRAWN_SAMPLES if DRAWN_SAMPLES in samples else samples[-1]
    scatters = []
    with evaluation(n_models) as (report, trained):
        protocol = FewShotProtocol(make, split, progress=trained)
        for chosen, targets in work:
            for seed in seeds:
                for target in targets:
                    for n in samples:
                        answers = _score_one(protocol, board, chosen, target, n, seed)
                        report(f"{target}, {n} measurements, seed {seed}")
                        if (n, seed) == (drawn, seeds[0]):
                            scatters.append(_scatter(target, answers))
    drawn_text = f"{drawn} measurements, seed {seeds[0]}"
    return board, scatters, drawn_text, Path(config.to or f"evaluations/{split.name}-{option}")


def _score_one(protocol: FewShotProtocol, board: Scoreboard, chosen: Round, target: str, n: int, seed: int) -> Answers:
    """Scores one model on all queries; gives its answers to the first."""
    model = protocol.adapted(chosen, target, n, seed)
    answers = {query: protocol.answers(model, target, query) for query in protocol.split.queries}
    for query, a in answers.items():
        board.add(target, n, query, a.scores(n))
    return next(iter(answers.values()))


def _targets(config: DictConfig, chosen: Round) -> tuple[str, ...]:
    allowed = {"targets": chosen.targets, "validation": chosen.validation}
    if config.score not in allowed:
        raise ConfigError("nothing to score", field="score", value=config.score, allowed=list(allowed))
    if not allowed[config.score]:
        raise ConfigError(f"round {chosen.name} has no such settings", field="score", value=config.score)
    return allowed[config.score]


def _print_plan(option: str, split: str, fits: int, models: int, options: Options) -> None:
    if options.json:
        print(json.dumps({"split": split, "predictor": option, "trainings": fits, "adapted_models": models}))
    else:
        print(f"{option} on {split}: learns {fits} times (if it learns from other settings), adapts {models} times")


# ---- A model ----------------------------------------------------------------------------------


def _score_model(config: DictConfig, options: Options) -> Found | None:
    import numpy as np

    from ...errors import DataError
    from ...predictors import load_model
    from ...predictors.protocol import Answers
    from ._latencies import read_latencies
    from ._scores import Scoreboard

    model, provenance = load_model(Path(config.model))
    genotypes, latencies = read_latencies(Path(config["from"]), model.space)
    known = np.isin(model.space.keys(genotypes), provenance.architectures)
    fresh = np.flatnonzero(~known)
    if len(fresh) < 3:
        raise DataError(
            "too few architectures that the model was not adapted from",
            field="from",
            value=f"{len(fresh)} of {len(known)} in {config['from']}",
            allowed="3 or more",
        )
    if options.plan:
        _print_plan(provenance.predictor, str(config["from"]), 0, 0, options)
        return None
    mean, deviation = model.predict(genotypes[fresh])
    n, name = len(provenance.architectures), str(provenance.details.get("name") or provenance.setting)
    answers = Answers(fresh, latencies[fresh], mean, deviation)
    about = {"model": str(config.model), "from": str(config["from"]), "left_out_as_known": int(known.sum())}
    board = Scoreboard(f"{config.model} against {config['from']}", about)
    board.add(name, n, "all", answers.scores(n))
    to = Path(config.to or f"evaluations/{Path(config.model).name}")
    return board, [_scatter(name, answers)], f"{n} measurements", to


# ---- Both -------------------------------------------------------------------------------------


def _scatter(name: str, answers: Answers) -> Scatter:
    from ...reports.predictor_plots import Scatter

    scores = answers.scores(0)
    words = f"Spearman {scores.spearman:.3f}, {100 * scores.within_10_percent:.0f} % within ±10 %"
    return Scatter(name, answers.measured_ms, answers.mean_ms, answers.std_ms, words)


def _numbers(value: Any, field: str, least: int) -> list[int]:
    """A number or a list of distinct ones, ascending."""
    from .._values import checked_integer

    values = [value] if isinstance(value, (int, str, float)) else list(value or [])
    numbers = sorted({checked_integer(v, field, least) for v in values})
    if not numbers:
        raise ConfigError("no number", field=field, value=value, allowed=f"a number of {least} or more, or a list")
    return numbers


def _seeds(value: Any) -> list[int]:
    """``3`` is seeds 0, 1, 2; a list is itself."""
    return list(range(_numbers(value, "seeds", 1)[0])) if isinstance(value, int) else _numbers(value, "seeds", 0)
