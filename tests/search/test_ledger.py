"""The ledger: nothing twice, nothing lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import optuna
import pytest

from gnomon.errors import StudyError
from gnomon.records import Evaluation
from gnomon.search import Problem, Proposal
from gnomon.search.ledger import Claim, Ledger
from gnomon.search_spaces import SearchSpace

Open = Callable[[], Ledger]


def propose(ledger: Ledger, problem: Problem, rows: np.ndarray, **more: object) -> int:
    with ledger.lease().held() as mine:
        assert mine
        return ledger.commit(Proposal(rows, **more), problem, ledger.history())


def evaluate_all(ledger: Ledger, problem: Problem) -> list[str]:
    keys = []
    while (claim := ledger.claim()) is not None:
        ledger.complete(claim, Evaluation(float(len(keys))), problem)
        keys.append(claim.key)
    return keys


@pytest.fixture
def rows(space: SearchSpace) -> np.ndarray:
    return np.unique(space.sample(50, np.random.default_rng(0)), axis=0)


def test_proposals_states_and_attributes_come_back(open_ledger: Open, problem: Problem, rows: np.ndarray) -> None:
    attributes = tuple({"generation": i} for i in range(4))
    assert propose(open_ledger(), problem, rows[:4], state={"k": [1, 2]}, attributes=attributes) == 4
    history = open_ledger().history()
    assert history.state == {"k": [1, 2]}
    assert history.step == 1
    assert [t.attributes["generation"] for t in history.trials] == [0, 1, 2, 3]
    np.testing.assert_array_equal(np.stack([t.genotype for t in history.trials]), rows[:4])
    assert all(t.state == "pending" for t in history.trials)


def test_losses_are_minimised_and_the_violation_is_of_the_limit(
    open_ledger: Open, problem: Problem, rows: np.ndarray
) -> None:
    ledger = open_ledger()
    propose(ledger, problem, rows[:3])
    evaluate_all(ledger, problem)
    history = open_ledger().history()
    np.testing.assert_allclose(history.losses[:, 0], [0.0, -1.0, -2.0])
    np.testing.assert_allclose(history.losses[:, 1], 1.0 + rows[:3].sum(axis=1))
    np.testing.assert_allclose(history.violation, problem.violation(rows[:3]))


def test_duplicates_of_evaluated_rows_are_copied_and_cost_nothing(
    open_ledger: Open, problem: Problem, rows: np.ndarray
) -> None:
    ledger = open_ledger()
    propose(ledger, problem, rows[:3])
    evaluate_all(ledger, problem)
    assert propose(ledger, problem, np.concatenate([rows[1:3], rows[3:4]])) == 1
    history = ledger.history()
    copies = [t for t in history.trials if t.duplicate_of is not None]
    assert [t.duplicate_of for t in copies] == [1, 2]
    assert copies[0].losses == history.trials[1].losses
    assert len(history.evaluated) == 3
    assert len(history.complete) == 5


def test_rows_that_are_pending_failed_or_repeated_are_dropped(
    open_ledger: Open, problem: Problem, rows: np.ndarray
) -> None:
    ledger = open_ledger()
    assert propose(ledger, problem, np.concatenate([rows[:2], rows[:1]])) == 2
    claim = ledger.claim()
    assert claim is not None
    ledger.fail(claim, "no")
    assert propose(ledger, problem, rows[:2]) == 0
    assert len(ledger.history().trials) == 2
    assert ledger.counts().failed == 1


def test_a_trial_is_claimed_once(open_ledger: Open, problem: Problem, rows: np.ndarray) -> None:
    first, second = open_ledger(), open_ledger()
    propose(first, problem, rows[:6])
    claims = [ledger.claim() for _ in range(3) for ledger in (first, second)]
    assert len({c.number for c in claims if c is not None}) == 6
    assert first.claim() is None


def test_a_kill_between_commit_and_trials_loses_nothing(
    open_ledger: Open, problem: Problem, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger()
    made = 0
    create = ledger._storage.create_new_trial

    def dies_at_the_third(*arguments: object) -> int:
        nonlocal made
        made += 1
        if made == 3:
            raise KeyboardInterrupt
        return create(*arguments)

    monkeypatch.setattr(ledger._storage, "create_new_trial", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        propose(ledger, problem, rows[:5], state={"k": 1})
    again = open_ledger()
    again.materialise(problem)
    again.materialise(problem)
    np.testing.assert_array_equal(again.history().known, rows[:5])
    assert again.history().step == 1


def test_a_kill_between_evaluation_and_state_is_mended(open_ledger: Open, problem: Problem, rows: np.ndarray) -> None:
    ledger = open_ledger()
    propose(ledger, problem, rows[:2])
    written, unwritten = ledger.claim(), ledger.claim()
    assert written is not None
    assert unwritten is not None
    ledger._storage.set_trial_user_attr(written.trial_id, "evaluation", Evaluation(7.0).to_dict())
    for claim in (written, unwritten):
        sign_as_dead(ledger, claim)
    again = open_ledger()
    assert again.reap(problem) == 1
    assert again.history().quality.tolist() == [7.0]
    claim = again.claim()
    assert claim is not None
    assert claim.key == unwritten.key


def sign_as_dead(ledger: Ledger, claim: Claim) -> None:
    host, pid, _ = ledger.worker.rsplit(":", 2)
    ledger._storage.set_trial_user_attr(claim.trial_id, "claim", {"worker": f"{host}:{pid}:1.0", "time": 1e12})


def test_claims_of_the_living_are_left_alone(open_ledger: Open, problem: Problem, rows: np.ndarray) -> None:
    ledger = open_ledger()
    propose(ledger, problem, rows[:1])
    assert ledger.claim() is not None
    assert open_ledger().reap(problem) == 0
    assert ledger.counts().running == 1


def test_another_search_under_the_same_name_is_refused(open_ledger: Open, problem: Problem) -> None:
    ledger = open_ledger()
    with pytest.raises(StudyError, match=r"searches something else.*space.*study\.resume"):
        ledger.create(problem.objective, {"space": {"_target_": "another"}})


def test_notes_come_back(open_ledger: Open) -> None:
    open_ledger().set_note("calibration", {"keys": ("a",), "latency": np.float64(1.5)})
    assert open_ledger().note("calibration") == {"keys": ["a"], "latency": 1.5}
    assert open_ledger().note("nothing") is None


def test_a_lease_excludes_others(storage: str, space: SearchSpace, problem: Problem) -> None:
    first, second = Ledger(storage, "toy", space), Ledger(storage, "toy", space)
    first.create(problem.objective, {})
    second.worker = "another-host:1:1.0"
    with first.lease().held() as mine:
        assert mine
        with second.lease().held() as other:
            assert not other
        with second.lease("finalise").held() as another_purpose:
            assert another_purpose
        assert first.lease().renew()
    with second.lease().held() as other:
        assert other


def test_a_lease_outlives_its_holders_death(tmp_path, space: SearchSpace, problem: Problem) -> None:  # type: ignore[no-untyped-def]
    storage = f"sqlite:///{tmp_path}/ledger.sqlite"
    first, dead = Ledger(storage, "toy", space), Ledger(storage, "toy", space)
    first.create(problem.objective, {})
    dead.worker = dead.worker.rsplit(":", 1)[0] + ":1.0"  # a process id that has been reused
    assert dead.lease().acquire()
    assert first.lease().acquire()
    assert not dead.lease().renew()
    rows = space.sample(3, np.random.default_rng(0))
    assert dead.create(problem.objective, {}) is None
    assert dead.commit(Proposal(rows), problem, dead.history()) is None, "a lost lease commits nothing"
    assert len(first.history().trials) == 0


def test_a_finished_trial_is_not_changed_by_who_lost_its_claim(
    open_ledger: Open, problem: Problem, rows: np.ndarray
) -> None:
    slow, fast = open_ledger(), open_ledger()
    propose(slow, problem, rows[:1])
    claim = slow.claim()
    assert claim is not None
    fast.complete(claim, Evaluation(1.0), problem)
    slow.complete(claim, Evaluation(2.0), problem)
    slow.fail(claim, "late")
    slow.give_back(claim)
    assert not slow.heartbeat(claim)
    assert fast.history().quality.tolist() == [1.0]


def test_a_study_of_somebody_else_is_left_alone(storage: str, space: SearchSpace, problem: Problem) -> None:
    ledger = Ledger(storage, "toy", space)
    other = optuna.create_study(study_name="toy", storage=ledger._storage)
    other.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StudyError, match="Gnomon did not make"):
        ledger.create(problem.objective, {})


@pytest.mark.parametrize("damage", [b"this is not a database", b"SQLite format 3\0" + bytes(84)])
def test_a_damaged_file_is_reported_and_kept(tmp_path, space: SearchSpace, damage: bytes) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(damage)
    with pytest.raises(StudyError, match="cannot be read or written"):
        Ledger(f"sqlite:///{path}", "toy", space).exists()
    assert path.read_bytes() == damage
