import numpy as np
import pytest

from gnomon.errors import ConfigError
from gnomon.search_spaces.extremes import largest, smallest
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.tasks.weight_sharing.choice_counts import ChoiceCounts
from gnomon.tasks.weight_sharing.progressive import Progressive
from gnomon.tasks.weight_sharing.sampling import SAMPLINGS, Sampler
from gnomon.tasks.weight_sharing.sandwich import Sandwich
from gnomon.tasks.weight_sharing.single_path import SinglePath
from tests.tasks.doubles.tiny_elastic import TinyElasticSpace


@pytest.fixture(scope="module")
def space():
    return MobileCNN(input_shape=(1, 28, 28), classes=10, width=0.5, blocks=3)


def drawn(schedule, steps):
    return np.stack([lesson.genotype for step in steps for lesson in schedule.lessons(step)])


RULES = [SinglePath(networks=2), Sandwich(), Progressive()]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_step_depends_on_seed_and_step_alone(space, rule, sampling):
    rule = type(rule)(sampling=sampling)
    there = drawn(rule.schedule(space, 100, 3), range(40, 100))
    back = drawn(rule.schedule(space, 100, 3), reversed(range(40, 100)))
    per_step = len(there) // 60
    assert (there.reshape(60, per_step, -1) == back.reshape(60, per_step, -1)[::-1]).all()
    assert (there != drawn(rule.schedule(space, 100, 4), range(40, 100))).any()
    assert (space.canonical(there) == there).all()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_weights_of_a_step_add_up_to_one(space, rule):
    schedule = rule.schedule(space, 100, 0)
    for step in (0, 30, 99):
        assert sum(lesson.truth + lesson.teacher for lesson in schedule.lessons(step)) == pytest.approx(1.0)


def test_sandwich_is_largest_smallest_and_others(space):
    first, second, *others = Sandwich(random=3, distillation=0.75).schedule(space, 10, 0).lessons(4)
    shortcuts = np.array([d.name.endswith("skip") for d in space.decisions])
    assert (first.genotype == largest(space))[~shortcuts].all()
    assert (second.genotype == smallest(space))[~shortcuts].all()
    assert len(others) == 3
    assert (first.teacher, first.dropout) == (0.0, True)
    for other in (second, *others):
        assert (other.teacher, other.truth) == pytest.approx((0.15, 0.05))
        assert not other.dropout


def test_sandwich_teaches_truth_unless_asked_for_distillation(space):
    assert [(lesson.truth, lesson.teacher) for lesson in Sandwich(random=2).schedule(space, 10, 0).lessons(0)] == [
        (0.25, 0.0)
    ] * 4


def test_sandwich_trains_shortcuts_evenly(space):
    rows = drawn(Sandwich(random=0).schedule(space, 1000, 0), range(1000))
    for gene, decision in enumerate(space.decisions):
        if decision.name.endswith("skip"):
            shares = np.bincount(rows[:, gene], minlength=3) / len(rows)
            np.testing.assert_allclose(shares, 1 / 3, atol=0.05)


def test_fair_draws_are_exactly_even():
    space = TinyElasticSpace()
    counts = ChoiceCounts(space)
    for step in range(60):
        for row in Sampler(space, "fair", 0).draw(step, 2):
            counts.add(row)
    by_name = {row.decision: row for row in counts.rows()}
    assert by_name["width"].trained == (40, 40, 40)
    assert by_name["layer1.kernel"].trained == (60, 60)
    assert by_name["depth"].trained == (60, 60)
    assert sum(by_name["layer2.kernel"].trained) == 60  # active in the deeper half only
    assert by_name["width"].imbalance == 1.0


def test_uniform_draws_are_even_on_average(space):
    rows = Sampler(space, "uniform", 0).draw(0, 20_000)
    for gene, decision in enumerate(space.decisions):
        shares = np.bincount(rows[:, gene], minlength=len(decision.choices)) / len(rows)
        np.testing.assert_allclose(shares, 1 / len(decision.choices), atol=0.02)


def test_macs_draws_reach_the_ends_more_often(space):
    def spread(way):
        sampler = Sampler(space, way, 0)
        rows = np.concatenate([sampler.draw(step, 4) for step in range(250)])
        return np.quantile(np.log(space.costs(rows).macs), [0.1, 0.9])

    uniform, macs = spread("uniform"), spread("macs")
    assert macs[0] < uniform[0]
    assert macs[1] >= uniform[1] - 0.05
    assert macs[1] - macs[0] > 1.1 * (uniform[1] - uniform[0])


def test_unknown_sampling_is_refused(space):
    with pytest.raises(ConfigError, match="uniform, fair, macs"):
        SinglePath(sampling="even").schedule(space, 10, 0)


def test_progressive_opens_one_kind_after_the_other(space):
    schedule = Progressive(shares=(0.1, 0.3, 0.3, 0.3)).schedule(space, 1000, 0)
    assert (schedule.teacher_step, schedule.sort_step) == (100, 700)
    full = largest(space)
    kernels = np.array(["kernel" in d.name for d in space.decisions])
    depths = np.array(["layers" in d.name for d in space.decisions])
    assert (drawn(schedule, range(100)) == full).all()
    phases = [drawn(schedule, range(start, start + 300)) for start in (100, 400, 700)]
    varies = [(rows != full).any(axis=0) for rows in phases]
    assert (varies[0] == kernels).all()
    assert (varies[1] == kernels | depths).all()
    has_choices = space.algebra.cardinalities > 1
    assert (varies[2] == has_choices).all()
    assert [schedule.period(step) for step in (0, 99, 100, 999)] == [(0, 100), (0, 100), (100, 400), (700, 1000)]


def test_progressive_refuses_patterns_of_nothing(space):
    with pytest.raises(ConfigError, match="names no decision"):
        Progressive(phases=[["*heads*"]], shares=[0.5, 0.5]).schedule(space, 10, 0)


def test_closed_decisions_that_are_inactive_in_the_full_network_are_still_valid():
    space = TinyElasticSpace()
    rows = drawn(Progressive(phases=[["depth"], ["*"]], shares=[0.2, 0.4, 0.4]).schedule(space, 50, 0), range(50))
    assert (space.canonical(rows) == rows).all()


def test_rules_are_json(space):
    for rule in RULES:
        assert rule.to_dict()["name"] == rule.name
    assert Progressive().to_dict()["phases"] == [["*kernel*"], ["*depth*", "*layers*"], ["*"]]
