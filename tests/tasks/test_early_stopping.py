import numpy as np
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from gnomon.errors import ConfigError, TaskError
from gnomon.predictors.curves import LeastSquares, RandomForest
from gnomon.tasks.early_stopping import CurvePruner, Ended, HyperbandCurvePruner, StoppingRule, false_stops
from gnomon.tasks.early_stopping.rule import is_audited
from gnomon.testing.curve_regressor_suite import saturating_curves

EPOCHS = 10


def ended(n, seed=0):
    return Ended(saturating_curves(n, EPOCHS, seed), np.zeros((n, 0)))


def rule(**changes):
    return StoppingRule(**{"burn_in": 12, "regressor": LeastSquares(), **changes})


class TestRule:
    def test_says_nothing_in_the_burn_in_nor_before_the_first_epoch_nor_at_the_end(self):
        curve, none = saturating_curves(1, EPOCHS, 9)[0], np.zeros(0)
        assert rule().outlook(ended(11), curve[:3], none) is None
        assert rule().outlook(ended(12), curve[:3], none) is not None
        assert rule(first_epoch=3).outlook(ended(12), curve[:2], none) is None
        assert rule().outlook(ended(12), curve, none) is None

    def test_stops_the_hopeless_and_not_the_promising(self):
        known, none = ended(40), np.zeros(0)
        best = known.curves[np.argmax(known.curves[:, -1])]
        worst = known.curves[np.argmin(known.curves[:, -1])]
        hopeless, promising = (rule().outlook(known, curve[:5], none) for curve in (worst, best + 0.02))
        assert hopeless.stop
        assert hopeless.probability > 0.99
        assert not promising.stop
        assert hopeless.to_beat == known.curves[:, -1].max()

    def test_probability_is_that_of_the_normal_error(self):
        from scipy.stats import norm

        outlook = rule().outlook(ended(40), ended(1, 5).curves[0, :4], np.zeros(0), 0.6)
        assert outlook.probability == pytest.approx(norm.cdf((0.6 - outlook.mean) / outlook.std))

    def test_more_confidence_stops_fewer(self):
        known, others = ended(40), saturating_curves(100, EPOCHS, 1)
        stops = [
            sum(rule(confidence=c).outlook(known, curve[:2], np.zeros(0)).stop for curve in others)
            for c in (0.8, 0.95, 0.999)
        ]
        assert stops[0] > stops[1] > stops[2]

    def test_the_nth_best_is_easier_to_beat(self):
        known = ended(20)
        assert rule(rank=3).to_beat(known) == np.sort(known.curves[:, -1])[-3]
        assert rule(rank=30).to_beat(known) == -np.inf
        assert not rule(rank=30).outlook(known, known.curves[0, :4], np.zeros(0)).stop

    def test_a_decision_does_not_depend_on_what_was_decided_before(self):
        curve, none = saturating_curves(1, EPOCHS, 9)[0, :4], np.zeros(0)
        lasting = rule()
        for n in (12, 20, 40):
            lasting.outlook(ended(n), curve, none)
            assert lasting.outlook(ended(n), curve, none) == rule().outlook(ended(n), curve, none)

    def test_regressors_are_refitted_as_the_history_grows_but_not_each_time(self):
        counts = [rule()._count(n) for n in range(12, 60)]
        assert counts[0] == 12
        assert all(n - 0.15 * n - 1 <= count <= n for n, count in zip(range(12, 60), counts, strict=True))
        assert len(set(counts)) < 16

    def test_mistakes_are_clear(self):
        for changes in ({"confidence": 1.0}, {"burn_in": 3}, {"rank": 0}, {"first_epoch": 0}, {"regressor": "nu_svr"}):
            with pytest.raises(ConfigError, match=next(iter(changes))):
                StoppingRule(**changes)
        with pytest.raises(ConfigError, match=r"quality\.burn_in"):
            StoppingRule(burn_in=True, field="quality.")
        with pytest.raises(TaskError, match="not finite"):
            rule().outlook(ended(20), np.array([np.nan]), np.zeros(0))


def test_audits_are_drawn_from_the_seed_alone():
    drawn = [is_audited(0.2, 3, number) for number in range(2000)]
    assert drawn == [is_audited(0.2, 3, number) for number in range(2000)]
    assert 0.16 < np.mean(drawn) < 0.24
    assert not any(is_audited(0.0, 3, number) for number in range(20))


def truth(trial, number, curve):
    """Parameters that are part of the truth."""
    trial.suggest_float("end", 1e-6, 2.0, log=True)
    trial.suggest_categorical("kind", ["a", "b"])


def nothing(trial, number, curve):
    """No parameters."""


def replay(study, curves, first=0, suggest=truth, sign=1.0):
    """Reports curves (n, T) as one trial each."""
    for number, curve in list(enumerate(curves))[first:]:
        study.enqueue_trial({"end": float(curve[-1]), "kind": "a" if number % 2 else "b"})
        trial = study.ask()
        suggest(trial, number, curve)
        for epoch, value in enumerate(curve, start=1):
            trial.report(sign * float(value), epoch)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, sign * float(curve[-1]))
    return study


def study_of(pruner, direction="maximize", **storage):
    return optuna.create_study(direction=direction, pruner=pruner, sampler=optuna.samplers.RandomSampler(0), **storage)


def outcome(study):
    return [(t.state, len(t.intermediate_values)) for t in study.trials]


class TestCurvePruner:
    @pytest.fixture
    def curves(self):
        return saturating_curves(50, EPOCHS, seed=2)

    def test_saves_epochs_and_keeps_the_best(self, curves):
        study = replay(study_of(CurvePruner(EPOCHS, rule())), curves)
        assert study.best_value == pytest.approx(curves[:, -1].max())
        assert sum(epochs for _, epochs in outcome(study)) < 0.5 * curves.size
        assert all(epochs == EPOCHS for _, epochs in outcome(study)[:12])

    def test_minimising_is_the_same_upside_down(self, curves):
        up = replay(study_of(CurvePruner(EPOCHS, rule())), curves)
        down = replay(study_of(CurvePruner(EPOCHS, rule()), "minimize"), curves, sign=-1.0)
        assert outcome(up) == outcome(down)

    def test_goes_on_in_another_process_as_it_would_have(self, curves, tmp_path):
        whole = replay(study_of(CurvePruner(EPOCHS, rule())), curves)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
        replay(study_of(CurvePruner(EPOCHS, rule()), storage=storage, study_name="s"), curves[:25])
        again = optuna.load_study(study_name="s", storage=storage, pruner=CurvePruner(EPOCHS, rule()))
        assert outcome(replay(again, curves, first=25)) == outcome(whole)

    def test_says_what_it_expected(self, curves):
        study = replay(study_of(CurvePruner(EPOCHS, rule())), curves)
        pruned = [t for t in study.trials if t.state == optuna.trial.TrialState.PRUNED]
        expected = pruned[-1].user_attrs["gnomon:outlook"]
        assert expected["epoch"] == len(pruned[-1].intermediate_values)
        assert expected["mean"] < expected["to_beat"]
        found = false_stops(study)
        assert (found.stopped, found.audited, found.rate) == (len(pruned), 0, None)
        assert 0 < found.expected < 0.05

    def test_audited_trials_run_to_their_end_and_tell_of_false_stops(self, curves):
        study = replay(study_of(CurvePruner(EPOCHS, rule(), audit=0.5)), curves)
        found = false_stops(study)
        assert found.audited > 5
        assert found.stopped > 5
        assert found.rate == 0.0

    def test_false_stops_are_found(self, curves):
        late = curves.copy()
        late[40:] = np.concatenate([np.full((10, EPOCHS - 1), 0.05), np.full((10, 1), 2.0)], axis=1)
        late[40:, -1] += np.arange(10)  # what starts so badly never won before
        study = replay(study_of(CurvePruner(EPOCHS, rule(), audit=0.5)), late, suggest=nothing)
        assert false_stops(study).wrong > 0

    def test_parameters_that_only_some_trials_have(self, curves):
        def sometimes(trial, number, curve):
            if number % 3:
                trial.suggest_int("depth", 1, 4)

        study = replay(study_of(CurvePruner(EPOCHS, rule())), curves, suggest=sometimes)
        assert any(t.state == optuna.trial.TrialState.PRUNED for t in study.trials)

    def test_what_is_not_a_number_is_pruned(self):
        study = study_of(CurvePruner(EPOCHS, rule()))
        trial = study.ask()
        assert not trial.should_prune()
        trial.report(float("nan"), 1)
        assert trial.should_prune()

    def test_mistakes_are_clear(self):
        for arguments, field in (((1,), "epochs"), ((5, None, 1.0), "audit"), ((5, None, 0.1, -1), "seed")):
            with pytest.raises(ConfigError, match=field):
                CurvePruner(*arguments)


class TestHyperband:
    def test_either_may_prune_after_the_burn_in(self):
        curves = saturating_curves(60, EPOCHS, seed=3)
        curve = CurvePruner(EPOCHS, rule(rank=2))
        pruners = (curve, optuna.pruners.HyperbandPruner(1, EPOCHS, 3), HyperbandCurvePruner(curve))
        alone, hyperband, both = (replay(study_of(pruner), curves, suggest=nothing) for pruner in pruners)
        spent, _, together = (sum(epochs for _, epochs in outcome(study)) for study in (alone, hyperband, both))
        assert all(epochs == EPOCHS for _, epochs in outcome(both)[:12])
        assert together < spent
        assert outcome(both) != outcome(hyperband)
        assert isinstance(both.pruner, optuna.pruners.HyperbandPruner)  # samplers look for it


def test_regressors_can_be_chosen():
    outlook = rule(regressor=RandomForest(trees=20)).outlook(ended(20), ended(1, 5).curves[0, :4], np.zeros(0))
    assert 0 <= outlook.probability <= 1
