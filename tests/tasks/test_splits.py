import numpy as np
import pytest

from gnomon.errors import ConfigError, DataError
from gnomon.tasks.image_data import ImageData
from gnomon.tasks.prepared import prepare
from gnomon.tasks.splits import count_label_conflicts, example_keys, first_occurrences, stratified_split

SPLITS = ("train", "validation", "test")


def images_of(values):
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 1, 2, 2), np.uint8)


def data_of(values, labels, names=("a", "b")):
    return ImageData(images_of(values), np.array(labels, np.int64), names, "test data", 1 / 255)


def test_first_of_each_duplicate_stays():
    keys = example_keys(images_of([7, 8, 7, 9, 8, 7]))
    assert first_occurrences(keys).tolist() == [0, 1, 3]


def test_conflicting_labels_are_counted():
    keys = example_keys(images_of([1, 1, 2, 2, 3]))
    assert count_label_conflicts(keys, np.array([0, 1, 0, 0, 1])) == 1


@pytest.mark.parametrize("seed", range(5))
def test_no_example_is_in_two_splits_however_often_it_was_copied(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 200, 600)
    prepared = prepare(data_of(values, values % 2), (0.6, 0.2, 0.2), seed)
    pixels = [set(prepared.raw(split)[:, 0, 0, 0].tolist()) for split in SPLITS]
    assert sum(map(len, pixels)) == len(set.union(*pixels)) == len(set(values.tolist()))
    assert prepared.duplicates_removed == 600 - len(set(values.tolist()))


def test_splits_are_stratified_and_use_everything():
    labels = np.repeat([0, 1, 2], [100, 200, 700])
    splits = stratified_split(labels, (0.7, 0.15, 0.15), seed=1)
    assert [np.bincount(labels[splits[name]]).tolist() for name in SPLITS] == [
        [70, 140, 490], [15, 30, 105], [15, 30, 105],
    ]  # fmt: skip
    assert sorted(np.concatenate([splits[name] for name in SPLITS])) == list(range(1000))


def test_split_depends_on_the_seed_only():
    labels = np.arange(300) % 3
    first, again, other = (stratified_split(labels, seed=seed) for seed in (4, 4, 5))
    assert all((first[name] == again[name]).all() for name in SPLITS)
    assert (first.test != other.test).any()


def test_fractions_below_one_leave_examples_out_and_test_is_kept():
    labels = np.arange(300) % 3
    whole, part = stratified_split(labels, (0.7, 0.15, 0.15)), stratified_split(labels, (0.2, 0.1, 0.15))
    assert len(part.train) == 60
    assert (part.test == whole.test).all()


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.8, 0.2, 0.2), (1, 0, 0), (0.7, -0.1, 0.4), (float("nan"), 0.1, 0.1)]
)
def test_bad_fractions_are_refused(fractions):
    with pytest.raises(ConfigError, match="three positive numbers"):
        stratified_split(np.arange(30) % 3, fractions)


def test_negative_seed_is_refused():
    with pytest.raises(ConfigError, match="split_seed"):
        stratified_split(np.arange(30) % 3, seed=-1)


def test_too_few_distinct_examples_of_a_class_name_the_class():
    with pytest.raises(DataError, match=r"class b=2.*at least 3"):
        prepare(data_of([1, 2, 3, 4, 5, 6, 6, 6], [0, 0, 0, 0, 1, 1, 1, 1]), (0.7, 0.15, 0.15), 0)


def test_three_examples_make_one_of_each():
    splits = stratified_split(np.array([0, 0, 0, 1, 1, 1]))
    assert splits.sizes == {"train": 2, "validation": 2, "test": 2}


def test_normalisation_is_of_the_train_split_only():
    prepared = prepare(data_of(range(200), [i % 2 for i in range(200)]), (0.5, 0.25, 0.25), 0)
    train = prepared.raw("train") / 255
    assert prepared.mean[0] == pytest.approx(train.mean(), rel=1e-6)
    assert prepared.std[0] == pytest.approx(train.std(), rel=1e-6)
    assert prepared.normalised("train").mean() == pytest.approx(0, abs=1e-6)
    assert prepared.normalised("test").mean() != pytest.approx(0, abs=1e-3)


def test_preprocessing_describes_what_the_model_gets():
    prepared = prepare(data_of(range(200), [i % 2 for i in range(200)]), (0.5, 0.25, 0.25), 0)
    told = prepared.preprocessing()
    by_hand = (prepared.raw("test") * told["scale"] - np.reshape(told["mean"], (1, -1, 1, 1))) / told["std"][0]
    np.testing.assert_allclose(prepared.normalised("test"), by_hand, atol=1e-6)


def test_constant_channel_is_not_blown_up():
    images = np.stack([images_of(range(60))[:, 0], images_of([9] * 60)[:, 0]], axis=1)
    data = ImageData(images, np.arange(60) % 2, ("a", "b"), "test data", 1 / 255)
    assert np.abs(prepare(data, (0.6, 0.2, 0.2), 0).normalised("test")[:, 1]).max() < 1e-6
