"""What benchmarks share: kept trainings, fronts, hand-made networks, strata."""

import json

import numpy as np
import pytest

from benchmarks import _common
from benchmarks._fronts import Point, front, line, near_front, speedup
from benchmarks._kept import Kept
from benchmarks._sequences import SequenceTraining, paired_difference, pairs_of, score_named
from benchmarks._trainings import SpaceNetwork, Training, TrainingResult, TrainingStore, run_all
from benchmarks.handmade import FAMILIES, HandMade, handmade_networks
from benchmarks.seq2seq_search import fastest_as_good, quick_plans
from benchmarks.supernet_rank import regret, stratified
from gnomon.conf.compose import compose
from gnomon.errors import SchemaError
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.tasks.sequences.metrics import symbol_metrics, text_metrics

DIGITS = ("task=digits", "task.fractions=[0.1,0.1,0.1]")


@pytest.fixture
def network():
    space = MobileCNN((1, 8, 8), 10, width=0.25, blocks=1)
    return SpaceNetwork.of(space, space.named_genotype("vgg_like"))


class TestTrainings:
    def test_what_was_trained_is_not_trained_again(self, network, tmp_path, monkeypatch):
        jobs = [Training(network, DIGITS, 1.0, seed) for seed in (0, 1)]
        first = run_all(jobs, TrainingStore(tmp_path))
        monkeypatch.setattr("benchmarks._trainings.train", lambda training: pytest.fail("trained again"))
        again = run_all([*jobs, jobs[0]], TrainingStore(tmp_path))
        assert again == first
        assert first[jobs[0]].validation_loss != first[jobs[1]].validation_loss

    def test_it_goes_on_after_a_death(self, network, tmp_path, monkeypatch):
        jobs = [Training(network, DIGITS, 1.0, seed) for seed in (0, 1)]
        done = []

        def dies(training):
            if training.seed == 1:
                raise KeyboardInterrupt
            done.append(training)
            return TrainingResult(0.5, 1.0, 0.4, 1.1, 3.0)

        monkeypatch.setattr("benchmarks._trainings.train", dies)
        with pytest.raises(KeyboardInterrupt):
            run_all(jobs, TrainingStore(tmp_path))
        monkeypatch.setattr("benchmarks._trainings.train", lambda training: TrainingResult(0.6, 1.0, 0.4, 1.1, 3.0))
        found = run_all(jobs, TrainingStore(tmp_path))
        assert [found[job].validation_accuracy for job in jobs] == [0.5, 0.6]

    def test_two_claims_exclude_each_other(self, network, tmp_path):
        job, store = Training(network, DIGITS, 1.0, 0), TrainingStore(tmp_path)
        with store.claim(job) as first, TrainingStore(tmp_path).claim(job) as second:
            assert (first, second) == (True, False)
        with store.claim(job) as later:
            assert later

    def test_another_trainings_file_is_refused(self, network, tmp_path):
        job, store = Training(network, DIGITS, 1.0, 0), TrainingStore(tmp_path)
        store.put(job, TrainingResult(0.5, 1.0, 0.4, 1.1, 3.0))
        data = json.loads(store.path(job).read_text())
        data["training"]["seed"] = 7
        store.path(job).write_text(json.dumps(data))
        with pytest.raises(SchemaError, match="another training"):
            store.get(job)

    def test_kept_trainings_are_not_done_again_on_another_machine(self, network, tmp_path, monkeypatch):
        job, path = Training(network, DIGITS, 1.0, 0), tmp_path / "kept.jsonl"
        monkeypatch.setattr("benchmarks._trainings.train", lambda training: TrainingResult(0.5, 1.0, 0.4, 1.1, 3.0))
        first = run_all([job], TrainingStore(tmp_path / "here", Kept(path)))
        monkeypatch.setattr("benchmarks._trainings.train", lambda training: pytest.fail("trained again"))
        assert run_all([job, job], TrainingStore(tmp_path / "there", Kept(path))) == first
        assert len(path.read_text().splitlines()) == 1

    def test_what_only_the_folder_has_is_kept_too(self, network, tmp_path):
        job, path = Training(network, DIGITS, 1.0, 0), tmp_path / "kept.jsonl"
        TrainingStore(tmp_path).put(job, TrainingResult(0.5, 1.0, 0.4, 1.1, 3.0))
        run_all([job], TrainingStore(tmp_path, Kept(path)))
        assert Kept(path).training(job) == TrainingResult(0.5, 1.0, 0.4, 1.1, 3.0)

    def test_kept_searches_are_those_of_the_same_words(self, tmp_path):
        path = tmp_path / "kept.jsonl"
        assert Kept(path).search("a", ["task=digits"], lambda: ["x", "y"]) == ["x", "y"]
        assert Kept(path).search("a", ["task=digits"], lambda: pytest.fail("searched again")) == ["x", "y"]
        assert Kept(path).search("a", ["task=animals"], lambda: ["z"]) == ["z"]

    def test_a_search_of_changed_configs_is_another_one(self, tmp_path, monkeypatch):
        path, words = tmp_path / "kept.jsonl", ["experiment=small_cnn", "task=digits"]
        Kept(path).search("a", words, lambda: ["x"])
        monkeypatch.setattr("benchmarks._kept.compose", lambda job, words: compose(job, [*words, "study.references=9"]))
        assert Kept(path).search("a", words, lambda: ["y"]) == ["y"]

    @pytest.mark.parametrize("line", ["{", "[]", '{"schema": "other/1"}', '{"schema": "gnomon.benchmark.kept/1"}'])
    def test_a_damaged_line_is_named(self, line, tmp_path):
        path = tmp_path / "kept.jsonl"
        Kept(path).search("a", [], lambda: ["x"])
        with path.open("a") as stream:
            stream.write(line + "\n")
        with pytest.raises(SchemaError, match=r"line 2|with another schema"):
            Kept(path)

    def test_everything_that_matters_is_in_the_name(self, network):
        other = HandMade("plain", 0.25, 3, (1, 8, 8), 10)
        jobs = [
            Training(network, DIGITS, 1.0, 0),
            Training(network, DIGITS, 2.0, 0),
            Training(network, DIGITS, 1.0, 1),
            Training(network, (*DIGITS, "task.training.lr=0.01"), 1.0, 0),
            Training(other, DIGITS, 1.0, 0),
        ]
        assert len({job.name() for job in jobs}) == len(jobs)


def points(latencies, accuracies):
    return [Point(f"{ms}", ms, (a, a), (a, a)) for ms, a in zip(latencies, accuracies, strict=True)]


class TestFronts:
    def test_a_front_that_takes_twice_as_long(self):
        ours, theirs = points((1.0, 2.0, 4.0), (0.8, 0.9, 0.95)), points((2.0, 4.0, 8.0), (0.8, 0.9, 0.95))
        found = speedup(ours, theirs)
        assert (found.mean, found.least, found.most) == pytest.approx((2.0, 2.0, 2.0))
        assert (found.from_accuracy, found.to_accuracy) == pytest.approx((0.8, 0.95))
        assert speedup(theirs, ours).mean == pytest.approx(0.5)

    def test_a_margin_counts_against_us(self):
        ours, theirs = points((1.0, 2.0), (0.8, 0.9)), points((2.0, 4.0), (0.8, 0.9))
        # 1 point of 10 that a doubling buys.
        assert speedup(ours, theirs, margin=0.01).mean == pytest.approx(2.0 * 2.0**-0.1)

    def test_no_common_accuracy(self):
        assert speedup(points((1.0, 2.0), (0.5, 0.6)), points((1.0, 2.0), (0.7, 0.8))) is None

    def test_dominated_networks_are_left_out(self):
        members = points((1.0, 2.0, 3.0), (0.8, 0.7, 0.9))
        assert [p.latency_ms for p in front(members)] == [1.0, 3.0]

    def test_a_front_that_is_better_everywhere(self):
        ours, theirs = points((1.0, 2.0), (0.9, 0.95)), points((2.0, 4.0), (0.5, 0.6))
        assert speedup(ours, theirs) is None
        assert speedup(ours, theirs, or_better=True).mean == pytest.approx(8.0**0.5)
        assert speedup(theirs, ours, or_better=True) is None

    def test_near_the_front(self):
        networks = {
            "fast": (1.0, 0.8),
            "as good": (2.0, 0.8),
            "nearly": (2.0, 0.79),
            "worse": (3.0, 0.78),
            "best": (4.0, 0.9),
        }
        assert near_front(networks, 0.0) == {"fast", "as good", "best"}
        assert near_front(networks, 0.011) == {"fast", "as good", "nearly", "best"}

    def test_wrong_order_by_chance_is_pooled(self):
        found = line(np.array([1.0, 2.0, 3.0]), np.array([0.82, 0.80, 0.9]))
        assert found.accuracy == pytest.approx([0.81, 0.9])
        assert found.latency_ms == pytest.approx([1.0, 3.0])


class TestHandMade:
    def test_the_published_sizes(self):
        """1801.04381: 3.4 million parameters and 300 million multiply-accumulates (3,504,872 exactly)."""
        network = HandMade("mobilenet_v2", 1.0, 0, (3, 224, 224), 1000)
        assert sum(p.numel() for p in network.build().parameters()) == 3_504_872
        assert network.macs == 300_774_272

    @pytest.mark.parametrize("family", FAMILIES)
    def test_small_images(self, family):
        import torch

        for cut in (0, 3):
            network = HandMade(family, 0.25, cut, (1, 28, 28), 10)
            assert network.build()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)

    def test_each_network_once_by_size(self):
        networks = handmade_networks((1, 28, 28), 10)
        assert len({repr(network.layers) for network in networks}) == len(networks) == len({n.name for n in networks})
        assert [n.macs for n in networks] == sorted(n.macs for n in networks)


def test_strata_ascend_in_macs_and_are_distinct():
    space = MobileCNN((1, 28, 28), 10, width=0.25, blocks=5)
    rows = stratified(space, 12)
    macs = space.costs(rows).macs
    assert (np.diff(macs) > 0).all()
    assert np.array_equal(rows, stratified(space, 12))


def test_regret_is_of_the_best_of_the_first():
    accuracy = np.array([0.90, 0.95, 0.94, 0.97])
    assert regret(np.array([0.1, 0.2, 0.3, 0.4]), accuracy, 3) == pytest.approx(2.0)
    assert regret(np.array([0.1, 0.2, 0.4, 0.3]), accuracy, 3) == pytest.approx(0.0)


class TestSequences:
    WRITTEN = ("A B C", "A B", "C")
    REFERENCES = (("A B C",), ("A C", "B B"), ("A B",))

    @pytest.mark.parametrize("metric", ["phoneme_accuracy", "bleu", "chrf"])
    def test_sums_of_statistics_give_the_tasks_score(self, metric):
        score = score_named(metric, self.REFERENCES)
        found = score.of_sums(score.statistics(self.WRITTEN).sum(axis=0))
        known = {
            **symbol_metrics(self.WRITTEN, self.REFERENCES, "phoneme"),
            **text_metrics(self.WRITTEN, self.REFERENCES),
        }
        assert found == pytest.approx(known[metric])

    def test_equal_models_do_not_differ(self):
        score = score_named("phoneme_accuracy", self.REFERENCES)
        found = paired_difference(score, [self.WRITTEN], [self.WRITTEN])
        assert (found.mean, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)

    def test_a_clearly_better_model_is(self):
        references = [("A B C",)] * 200
        score = score_named("phoneme_accuracy", references)
        good = [["A B C"] * 195 + ["A B D"] * 5] * 2
        bad = [["A B C"] * 100 + ["A D D"] * 100, ["A B C"] * 110 + ["A D D"] * 90]
        found = paired_difference(score, good, bad)
        assert 0.2 < found.low < found.mean < found.high < 0.45
        assert found.p_value == 0.0

    def test_the_fastest_that_is_as_good(self):
        points = [Point(name, ms, (q,), (q,)) for name, ms, q in (("a", 1.0, 0.5), ("b", 2.0, 0.7), ("c", 3.0, 0.8))]
        assert fastest_as_good(points, Point("", 9.0, (0.6,), (0.0,))).name == "b"
        assert fastest_as_good(points, Point("", 9.0, (0.9,), (0.0,))).name == "c"

    def test_trainings_keep_what_was_written(self, tmp_path):
        (plan, _) = quick_plans(tmp_path)
        space = plan.plain_space()
        network = SpaceNetwork.of(space, space.named_genotype("plain_1x1_w16"))
        job = SequenceTraining(network, plan.task, 0.1, 0)
        (result,) = run_all([job], TrainingStore(tmp_path)).values()
        task = pairs_of(plan.task)
        assert len(result.written) == task.data.splits.sizes["test"]
        score = score_named("phoneme_accuracy", task.data.references_of("test"))
        assert score.of_sums(score.statistics(result.written).sum(axis=0)) == result.test["phoneme_accuracy"]
        assert TrainingStore(tmp_path).get(job) == result


class TestFiguresOfOthers:
    @pytest.fixture
    def results(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_common, "RESULTS", tmp_path)
        figures = {"schema": "gnomon.benchmark/1", "environment.date": "d", "one.speedup": 1.5, "oneness.x": 2.0}
        (tmp_path / "some.json").write_text(json.dumps({**figures, "two.speedup": 1.7, "cost": 3.0}))

    def test_only_those_of_the_groups_are_kept(self, results):
        assert _common.kept_figures("some", ["one"]) == {"one.speedup": 1.5}
        assert _common.kept_figures("some", ["one", "two"]) == {"one.speedup": 1.5, "two.speedup": 1.7}

    def test_none_without_groups_or_results(self, results):
        assert _common.kept_figures("some", []) == {}
        assert _common.kept_figures("other", ["one"]) == {}
