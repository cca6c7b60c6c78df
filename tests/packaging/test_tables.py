"""Figures in README and docs are those of benchmarks/results/, and come from full runs."""

import json
import re

import pytest

from benchmarks import tables
from benchmarks._common import RESULTS

RESULTS_OF_X = {
    "schema": "gnomon.benchmark/1",
    "benchmark": "x",
    "environment.cpu": "A CPU",
    "environment.cores": 2,
    "environment.commit": "abc",
    "environment.date": "2026-01-02T03:04:05+00:00",
    "hypervolume.random.fpga": 0.95,
    "hypervolume.random.mean": 0.9,
    "hypervolume.nsga2.fpga": 0.987654,
    "hypervolume.nsga2.mean": 0.99,
    "candidates_per_second.analytic": 1234567.0,
    "candidates_per_second.bayesian_linear": 250000.0,
}


def results(name):
    if name != "x":
        raise tables.TableError(f"no results of {name}")
    return RESULTS_OF_X


def rows_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


def block(options: str, inside: str = "old") -> str:
    return f"before\n<!-- table:x {options} -->\n{inside}\n<!-- /table -->\nafter\n"


def test_documents_agree_with_the_committed_results(capsys):
    assert tables.main(["--check"]) == 0, capsys.readouterr()


def test_committed_results_are_full_runs_and_flat():
    for path in RESULTS.glob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        assert found["benchmark"] == path.stem
        assert found["environment.quick"] is False, f"{path.name} comes from a --quick run"
        assert not any(isinstance(value, dict) for value in found.values())
        for fact in ("machine", "cpu", "cores", "python", "commit", "date", "seeds"):
            assert f"environment.{fact}" in found


def test_rows_and_columns_come_from_the_metric_names():
    text = tables.render(block('metric="hypervolume.{row}.{column}" row=strategy format=.3f'), results)
    assert rows_of(text) == [["strategy", "fpga", "mean"], ["random", "0.950", "0.900"], ["nsga2", "0.988", "0.990"]]
    assert "A CPU, 2 cores, commit abc, 2026-01-02" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text


def test_order_labels_and_choice():
    options = 'metric="hypervolume.{row}.{column}" sort=mean columns="mean: all devices" rows="random, nsga2: ours"'
    assert rows_of(tables.render(block(options), results)) == [
        ["", "all devices"],
        ["ours", "0.99"],
        ["random", "0.9"],
    ]


def test_one_column():
    options = 'metric="candidates_per_second.{row}" row=predictor value="candidates a second"'
    assert rows_of(tables.render(block(options), results)) == [
        ["predictor", "candidates a second"],
        ["analytic", "1,234,567"],
        ["bayesian_linear", "250,000"],
    ]


def test_rendering_twice_changes_nothing():
    once = tables.render(block('metric="hypervolume.{row}.{column}"') * 2, results)
    assert tables.render(once, results) == once
    assert once.count("A CPU") == 2


def test_a_figure_in_a_sentence():
    text = "It reaches <!-- number:x hypervolume.nsga2.mean .2f -->0.1<!-- /number --> on average."
    assert re.sub("<!--.*?-->", "", tables.render(text, results)) == "It reaches 0.99 on average."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (block('metric="speed.{row}"'), "has no metric speed"),
        (block("row=strategy"), "needs metric"),
        (block('metric="hypervolume.{row}.{column}" colums=mean'), "knows metric"),
        (block('metric="hypervolume.{row}.{column}" columns=median'), "median is not among"),
        (block('metric="hypervolume.{row}.{column}" sort=median'), "sort=median"),
        (block('metric="hypervolume.{row}.{column}" format=.q'), "format=.q"),
        ('<!-- table:x metric="a.{row}" -->\n', "needs its own"),
        ("text\n<!-- /table -->\n", "needs its own"),
        ("<!-- number:x speed -->1<!-- /number -->", "has no metric speed"),
        ("<!-- table:y metric=a.{row} -->\n<!-- /table -->", "no results of y"),
    ],
)
def test_what_cannot_be_shown_is_refused(text, message):
    with pytest.raises(tables.TableError, match=message):
        tables.render(text, results)


@pytest.fixture
def one_document(tmp_path, monkeypatch):
    document = tmp_path / "README.md"
    document.write_text(block('metric="hypervolume.{row}.{column}"'), encoding="utf-8")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "read_results", results)
    return document


def test_a_stale_document_is_found_and_mended(one_document, capsys):
    stale = one_document.read_text(encoding="utf-8")
    assert tables.main(["--check"]) == 1
    assert "README.md: out of date" in capsys.readouterr().out
    assert one_document.read_text(encoding="utf-8") == stale
    assert tables.main([]) == 0
    assert "0.9877" in one_document.read_text(encoding="utf-8")
    assert tables.main(["--check"]) == 0


def test_quick_results_are_not_for_quoting(one_document, monkeypatch, capsys):
    monkeypatch.setattr(tables, "read_results", lambda name: {**RESULTS_OF_X, "environment.quick": True})
    assert tables.main([]) == 2
    assert "--quick" in capsys.readouterr().err
