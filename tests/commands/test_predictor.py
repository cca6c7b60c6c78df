"""``gnomon predictor``: train, references, adapt, evaluate, on made-up measurements."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gnomon import cli
from gnomon.predictors import load_model, read_learnt
from gnomon.records import ArchitectureTable, DevicePool
from gnomon.records.pools import save_pool
from gnomon.records.table_file import save_table
from gnomon.search_spaces.nasbench201 import NASBench201

SPACE = NASBench201()
ROWS = SPACE.enumerate()[::20]
LOAD = "gnomon.records.table_file.load_table"
SPLIT = """
_target_: gnomon.records.splits.DeviceSplit
name: mine
data:
  - _target_: gnomon.records.pools.load_pool
    _partial_: true
    path: pool.npz
sources: [a, b, c]
validation: [d]
targets: [board, phone]
source_rows: [0, 300]
reference_rows: [0, 300]
queries:
  all: {rows: [300, 700]}
  few: {rows: [300, 700], middle: 0.5}
"""


def latency(seed: int, rows=ROWS):
    work = SPACE.execution_counts(rows)[:, 0, :4].astype(float)
    weights = np.random.default_rng(seed).uniform(0.5, 1.5, 4) * [1.0, 3.0, 9.0, 2.0]
    return (1.0 + work @ weights) * np.random.default_rng([seed, 1]).normal(1.0, 0.01, len(rows))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pool of six devices, a split of it, and a table of another device."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    settings = ("a", "b", "c", "d", "board", "phone")
    shuffled = np.random.default_rng(0).permutation(len(ROWS))
    values = np.stack([latency(seed, ROWS[shuffled]) for seed in range(6)], axis=1)
    save_pool(DevicePool(settings, values, "made up", SPACE, ROWS[shuffled]), tmp_path / "pool.npz")
    (tmp_path / "conf" / "split").mkdir(parents=True)
    (tmp_path / "conf" / "split" / "mine.yaml").write_text(SPLIT)
    every = SPACE.enumerate()
    table = ArchitectureTable(SPACE, every, {"watch": latency(9, every)}, "made up", {}, {"watch": "watch"})
    save_table(table, tmp_path / "watch.npz")
    return tmp_path


def gnomon(capsys, *words: str, code: int = 0):
    """Standard output; JSON where it was asked for."""
    assert cli.main(["predictor", *words]) == code, capsys.readouterr().err
    captured = capsys.readouterr()
    return json.loads(captured.out) if "--json" in words else captured.out + captured.err


WATCH = ("device=recorded", f"device.table._target_={LOAD}", "device.table.path=watch.npz", "device.column=watch")


def write_csv(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


# ---- Words ------------------------------------------------------------------------------------


def test_help_of_the_group_and_of_its_commands(capsys):
    for words in (["predictor"], ["predictor", "--help"]):
        assert cli.main(words) == 0
        printed = capsys.readouterr().out
        for name in ("train", "adapt", "evaluate", "references"):
            assert f"\n  {name} " in printed
    for name, key in (("train", "settings:"), ("adapt", "store:"), ("evaluate", "samples:"), ("references", "n:")):
        assert cli.main(["predictor", name, "--help"]) == 0
        assert f"\n{key}" in capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert "\n  predictor " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "adapt, evaluate, references, train"),
        (["train"], "from=POOL.npz, data=NAME"),
        (["train", "from=pool.npz", "store=x.sqlite"], "one pool"),
        (["train", "from=nowhere.npz"], "nowhere.npz"),
        (["train", "store=nowhere.sqlite"], "no such measurement store"),
        (["train", "from=pool.npz", "settings=[z]"], "board"),
        (["train", "from=pool.npz", "predictor=macs"], "nothing to train"),
        (["train", "from=pool.npz", "seed=-1"], "0 or more"),
        (["train", "from=pool.npz", "predictor.bundle=x"], "starts anew"),
        (["train", "split=help_fbnet_lodo"], "several rounds"),
        (["train", "split=help_fbnet_lodo", "round=z"], "titanx_1"),
        (["references", "space=nasbench201", "n=1"], "3 to"),
        (["references", "bundle=nowhere"], "nowhere"),
        (["references", "space=nasbench201", "predictor=help"], "learns from a pool"),
        (["adapt"], "device=NAME"),
        (["adapt", "from=x.txt"], ".csv"),
        (["adapt", "from=nowhere.csv"], "nowhere.csv"),
        (["adapt", "space=nasbench201", *WATCH, "n=2"], "3 to"),
        (["evaluate"], "split=NAME"),
        (["evaluate", "model=x"], "from=FILE"),
        (["evaluate", "model=nowhere", "from=x.csv"], "nowhere"),
        (["evaluate", "split=nothing"], "help_nasbench201"),
        (["evaluate", "split=mine", "samples=ten"], "1 or more"),
        (["evaluate", "split=mine", "samples=[]"], "1 or more"),
        (["evaluate", "split=mine", "samples=2"], "3 to"),
        (["evaluate", "split=mine", "score=sources"], "validation"),
        (["evaluate", "split=mine", "rounds=[x]"], "no such round"),
        (["evaluate", "split=mine", "predictor.bundle=x"], "null"),
    ],
)
def test_a_mistake_gets_one_line(here, capsys, words, says):
    assert cli.main(["predictor", *words, "--config-dir", "conf"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gnomon: ")
    assert len(captured.err.strip().splitlines()) == 1, captured.err
    assert says in captured.err


# ---- The road: train, references, adapt, evaluate ----------------------------------------------


def test_the_whole_road_from_a_pool_to_a_scored_model(here, capsys):
    printed = gnomon(capsys, "train", "from=pool.npz", "settings=[a,b,c]")
    assert "learnt from 3 settings, 782 architectures of nasbench201" in printed
    bundle = "bundles/gnomon-nasbench201"
    learnt = read_learnt(Path(bundle))
    assert (learnt.settings, learnt.architectures, learnt.source) == (("a", "b", "c"), 782, "made up")
    assert learnt.details["option"] == "gnomon"
    assert learnt.details["config"]["_target_"].endswith("GnomonPredictor")
    assert learnt.details["recorded"] == {"a": 782, "b": 782, "c": 782}
    assert {"date", "version"} <= set(learnt.details)

    asked = gnomon(capsys, "references", f"bundle={bundle}", "n=8", "to=refs.json", "--json")
    assert asked["architectures"][0]["name"] == "resnet_like"
    refs = json.loads((here / "refs.json").read_text())
    assert refs["schema"] == "gnomon.references/1"
    assert [a["architecture"] for a in refs["architectures"]] == [a["architecture"] for a in asked["architectures"]]
    keys = [a["architecture"] for a in refs["architectures"]]
    rows = np.stack([SPACE.algebra.from_key(key) for key in keys])
    for entry, ms in zip(refs["architectures"], latency(9, rows), strict=True):
        entry["latency_ms"] = ms
    (here / "refs.json").write_text(json.dumps(refs))

    report = gnomon(capsys, "adapt", f"bundle={bundle}", "from=refs.json", "to=mine", "--json")
    assert report["measurements"] == 8
    assert report["leave_one_out"]["mean_error"] < 0.2
    assert 0 < report["half_width_90"] < 0.5
    model, provenance = load_model(Path("mine"))
    assert list(provenance.architectures) == keys
    assert provenance.details["bundle"] == bundle
    queries = SPACE.sample(200, np.random.default_rng(5))
    assert np.corrcoef(model.predict_mean(queries), latency(9, queries))[0, 1] > 0.98

    fresh = list(dict.fromkeys(SPACE.keys(queries)))
    measured = latency(9, np.stack([SPACE.algebra.from_key(key) for key in fresh]))
    known = [[key, 1.0] for key in keys]
    write_csv(here / "l.csv", ["architecture", "latency_ms"], [*known, *zip(fresh, measured, strict=True)])
    scores = gnomon(capsys, "evaluate", "model=mine", "from=l.csv", "to=scored", "--json")
    assert scores["left_out_as_known"] >= 8
    assert scores["mean"][0]["spearman"] > 0.95
    assert json.loads(Path("scored/scores.json").read_text())["schema"] == "gnomon.predictor_evaluation/1"
    assert Path("scored/predicted_measured.png").stat().st_size > 10_000


def test_a_device_is_measured_through_the_store(here, capsys):
    printed = gnomon(capsys, "adapt", "space=nasbench201", *WATCH, "n=6", "to=mine")
    assert "leave-one-out error" in printed
    assert "90 % interval of a new architecture" in printed
    provenance = load_model(Path("mine"))[1]
    rows = np.stack([SPACE.algebra.from_key(key) for key in provenance.architectures])
    every = SPACE.enumerate()
    table = dict(zip(SPACE.keys(every), latency(9, every), strict=True))
    assert provenance.latencies_ms == pytest.approx([table[key] for key in SPACE.keys(rows)])
    assert (provenance.statistic, provenance.details["name"]) == ("median", "recorded_watch")
    assert Path("runs/measurements.sqlite").is_file()
    again = gnomon(capsys, "train", "store=runs/measurements.sqlite", "space=nasbench201", "--json")
    assert (again["settings"], again["architectures"]) == (["recorded_watch"], 6)


def test_more_is_measured_where_the_predictor_is_least_sure(here, capsys):
    gnomon(capsys, "adapt", "space=nasbench201", *WATCH, "n=6", "to=few")
    gnomon(capsys, "adapt", "space=nasbench201", *WATCH, "n=6", "refine=3", "to=more")
    few, keys = (load_model(here / name)[1].architectures for name in ("few", "more"))
    assert keys[:6] == few
    assert len(set(keys)) == len(keys) == 9


def test_too_few_to_leave_one_out_is_said(here, capsys):
    printed = gnomon(capsys, "adapt", "space=nasbench201", *WATCH, "n=3", "to=mine")
    assert "too few to leave one out" in printed
    assert load_model(Path("mine"))[1].details["trust"]["leave_one_out"] is None


def test_plans_do_nothing(here, capsys):
    before = sorted(path.name for path in here.iterdir())
    assert gnomon(capsys, "train", "from=pool.npz", "--plan", "--json")["recorded"]["a"] == 782
    assert "6 measurements" in gnomon(capsys, "adapt", "space=nasbench201", *WATCH, "n=6", "--plan")
    planned = gnomon(capsys, "evaluate", "split=mine", "--config-dir", "conf", "samples=[3,5]", "--plan", "--json")
    assert (planned["trainings"], planned["adapted_models"]) == (3, 12)
    assert sorted(path.name for path in here.iterdir()) == before


def test_a_bundle_of_another_space_is_refused(here, capsys):
    gnomon(capsys, "train", "from=pool.npz", "to=b")
    printed = gnomon(capsys, "references", "bundle=b", "space=nasbench_macro", code=2)
    assert "other decisions" in printed
    printed = gnomon(capsys, "references", "bundle=b", "predictor=linear_transfer", code=2)
    assert "another predictor" in printed


def test_help_goes_on_after_a_kill_and_cleans_up(here, capsys, monkeypatch):
    from gnomon.predictors.help import meta_learning

    words = ("train", "from=pool.npz", "predictor=help", "predictor.episodes=2", "predictor.validate_every=1")
    small = ("predictor.query=20", "predictor.tasks=2", "settings=[a,b]", "to=h")
    done = []
    real = meta_learning.MetaLearner.episode_loss

    def interrupted(self, *arguments, **more):
        done.append(1)
        if len(done) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments, **more)

    monkeypatch.setattr(meta_learning.MetaLearner, "episode_loss", interrupted)
    gnomon(capsys, *words, *small, code=130)
    assert [path.name for path in Path("h").iterdir()] == ["meta_training.safetensors"]
    gnomon(capsys, *words, *small)
    assert len(done) == 3, "one episode before the kill, the one that was killed, and that one again"
    assert sorted(path.name for path in Path("h").iterdir()) == ["predictor.json", "predictor.npz"]


# ---- Files of latencies -------------------------------------------------------------------------


def test_every_way_to_write_latencies_down(here, capsys):
    configs = [SPACE.config(row) for row in ROWS[::90]]
    keys, values = SPACE.keys(ROWS[::90]), latency(9, ROWS[::90]).tolist()
    write_csv(here / "keys.csv", ["key", "latency_ms"], [*zip(keys, values, strict=True), [keys[0], ""]])
    columns = [*(d.name for d in SPACE.decisions), "latency_ms"]
    write_csv(here / "columns.csv", columns, [[*c.values(), v] for c, v in zip(configs, values, strict=True)])
    entries = [{"config": c, "latency_ms": v} for c, v in zip(configs, values, strict=True)]
    (here / "list.json").write_text(json.dumps([*entries, {"config": configs[0], "latency_ms": None}]))
    (here / "bare.json").write_text(json.dumps({"architectures": entries}))
    found = {}
    for name in ("keys.csv", "columns.csv", "list.json", "bare.json"):
        gnomon(capsys, "adapt", "space=nasbench201", f"from={name}", "to=m")
        found[name] = load_model(Path("m"))[1]
    assert len({(p.architectures, p.latencies_ms) for p in found.values()}) == 1
    assert found["keys.csv"].architectures == tuple(keys)
    (here / "named.csv").write_text("architecture,latency_ms\nresnet_like,5\n0.0.0.0.0.0,1\n1.1.1.1.1.1,2\n")
    gnomon(capsys, "adapt", "space=nasbench201", "from=named.csv", "to=m")
    assert load_model(Path("m"))[1].architectures[0] == SPACE.keys(SPACE.named_genotype("resnet_like")[None])[0]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "architecture,latency_ms\n1.2.3,4\n", "entry 1 of a.csv is no architecture of nasbench201"),
        ("a.csv", "architecture,latency_ms\n1.1.1.1.1.1,-4\n", "a positive number, in ms"),
        ("a.csv", "architecture,latency_ms\n1.1.1.1.1.1,fast\n", "'fast'"),
        ("a.csv", "architecture,latency_ms\n1.1.1.1.1.1,nan\n", "'nan'"),
        ("a.csv", "net,latency_ms\nx,4\n", "names no architecture"),
        ("a.csv", "", "lists no architectures"),
        ("a.json", "{", "cannot read it"),
        ("a.json", '{"schema": "gnomon.references/99", "architectures": []}', "gnomon.references/1"),
        ("a.json", '[{"architecture": "1.1.1.1.1.1", "latency_ms": null}]', "Fill in latency_ms"),
        ("a.json", '[{"architecture": "1.1.1.1.1.1", "latency_ms": 2}]', "too few"),
    ],
)
def test_a_bad_file_of_latencies_is_named(here, capsys, name, text, says):
    (here / name).write_text(text)
    printed = gnomon(capsys, "adapt", "space=nasbench201", f"from={name}", code=2)
    assert says in printed
    assert not (here / "adapted").exists()


# ---- Evaluating on a split ----------------------------------------------------------------------


def test_a_split_is_scored_printed_and_drawn(here, capsys):
    words = ("evaluate", "split=mine", "--config-dir", "conf", "samples=[5,10]", "seeds=2")
    printed = gnomon(capsys, *words)
    assert "gnomon on mine, targets unseen" in printed
    for text in ("board", "phone", "mean", "Mean of 2 seeds"):
        assert text in printed
    folder = Path("evaluations/mine-gnomon")
    data = json.loads((folder / "scores.json").read_text())
    cases = {(s["setting"], s["samples"], s["query"]) for s in data["settings"]}
    assert cases == {(s, n, q) for s in ("board", "phone") for n in (5, 10) for q in ("all", "few")}
    assert all(len(s["seeds"]) == 2 for s in data["settings"])
    by_hand = np.mean([s["mean"]["spearman"] for s in data["settings"] if (s["samples"], s["query"]) == (10, "all")])
    overall = next(m for m in data["mean"] if (m["samples"], m["query"]) == (10, "all"))
    assert overall["spearman"] == pytest.approx(by_hand)
    assert overall["spearman"] > 0.97
    for name in ("predicted_measured.png", "accuracy_samples.png"):
        with Image.open(folder / name) as image:
            pixels = np.asarray(image.convert("L"))
        assert image.width >= 1200
        assert (pixels == 255).mean() > 0.5, "dark on light"
        assert (pixels < 120).any()


def test_validation_settings_and_one_round(here, capsys):
    found = gnomon(
        capsys, "evaluate", "split=mine", "--config-dir", "conf", "score=validation", "seeds=[4]", "samples=5", "--json"
    )
    assert {s["setting"] for s in found["settings"]} == {"d"}
    assert found["seeds"] == [4]
    assert [Path(path).name for path in found["files"]] == ["predicted_measured.png", "scores.json"]


def test_published_devices_are_predicted_as_well_as_said(data_root, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GNOMON_DATA", str(data_root))
    found = gnomon(capsys, "evaluate", "split=help_nasbench201", "seeds=1", f"to={tmp_path}", "--json")
    mean = {m["query"]: m for m in found["mean"]}
    assert mean["all"]["spearman"] > 0.955
    assert mean["trim"]["spearman"] > 0.93
    assert mean["all"]["within_10_percent"] > 0.75
