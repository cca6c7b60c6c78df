"""The whole report: every kind of study gives a page that stands alone."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from gnomon.errors import SchemaError, StudyError
from gnomon.records import ModelRow, StudySummary, TrialRow
from gnomon.reports import write_report
from gnomon.reports.report import read_summary

Write = Callable[[Path, StudySummary], Path]
NASTY = "<script>alert(1)</script>&\"'{{ 7*7 }}|`"
VOID = {"meta", "img", "br", "hr", "link", "input"}
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Checks that tags nest, and collects what the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.images: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        assert not any(name.startswith("on") for name in values)
        if "href" in values:
            self.links.append(values["href"] or "")
        if "src" in values:
            self.images.append(values["src"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def report(folder: Path, summary: StudySummary, write: Write) -> Page:
    path = write_report(write(folder, summary))
    assert path == folder / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    for link in page.links:
        assert not re.match(r"[a-z]+:|//|/", link), link
        assert (folder / unquote(link)).is_file(), link
    for image in page.images:
        assert base64.b64decode(image.removeprefix("data:image/png;base64,"), validate=True).startswith(PNG)
    return page


def test_rich_study(rich: StudySummary, tmp_path: Path, write: Write) -> None:
    page = report(tmp_path, rich, write)
    assert "4 models verified on onnxruntime; best 98.61 % test accuracy at 0.362 ms; limit 0.4 ms held" in page.text
    assert "1 of 4 measurements noisy" in page.text
    assert len(page.images) == 4
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert plots == {"front.png", "predicted_measured.png", "hypervolume.png", "importance.png"}
    for row in rich.models[:4]:
        assert f"{row.folder}/model.onnx" in page.links
        assert f"{row.folder}/card.md" in page.links
    for fact in (
        "measured 0.4212 ms, over the limit of 0.4 ms",
        "loss is not finite",
        "0.118 [0.1177, 0.1192]",
        "60% of mobilenet_v2 (0.667 ms measured here)",
        "4 min 51 s",
        "gnomon.search_spaces.MobileCNN",
        "bootstrapped over processes",
        "8.00 GiB",
        "mnasnet_a1",
    ):
        assert fact in page.text


def test_empty_unfinished_study(empty: StudySummary, tmp_path: Path, write: Write) -> None:
    page = report(tmp_path, empty, write)
    assert "Not finished: 0 architectures evaluated so far; no model verified yet." in page.text
    assert page.images == []
    assert "nothing to draw" in page.text
    assert not (tmp_path / "plots").exists() or not list((tmp_path / "plots").iterdir())


def test_finished_study_without_models(rich: StudySummary, tmp_path: Path, write: Write) -> None:
    page = report(tmp_path, replace(rich, models=()), write)
    assert "No model was finalised." in page.text
    assert len(page.images) == 4


def test_all_models_dropped(rich: StudySummary, tmp_path: Path, write: Write) -> None:
    page = report(tmp_path, replace(rich, models=rich.models[4:]), write)
    assert "No model was verified: 2 models finalised, all dropped." in page.text


def test_recorded_study_says_that_there_are_no_weights(recorded: StudySummary, tmp_path: Path, write: Write) -> None:
    page = report(tmp_path, recorded, write)
    assert "no weights and no ONNX files" in page.text
    assert "the table's value, not a measurement made here" in page.text
    assert "3 architectures checked against the published latencies of raspi4" in page.text
    assert "recorded (ms)" in page.text
    assert "measured (ms)" not in page.text
    assert not any(link.endswith(".onnx") for link in page.links)


def test_one_model_and_one_trial(
    empty: StudySummary, make_model: Callable[..., ModelRow], tmp_path: Path, write: Write
) -> None:
    trial = TrialRow(0, "1.2", "complete", 0.97, 0.2, 0.01, (0.97, 0.2), on_front=True)
    summary = replace(empty, models=(make_model(0, 0.2, 1.0),), trials=(trial,), hypervolume=((1, 1.0),), finished=True)
    page = report(tmp_path, summary, write)
    assert "1 model verified on onnxruntime; best 100.00 % test accuracy at 0.200 ms." in page.text
    assert len(page.images) == 3


def test_nasty_strings_are_only_text(rich: StudySummary, tmp_path: Path, write: Write) -> None:
    trials = (*rich.trials, replace(rich.trials[7], number=24, error=NASTY, key=NASTY))
    models = tuple(
        replace(m, key=NASTY, reason=NASTY, config={NASTY: NASTY}, files=(f"{i}/../../{NASTY}", "/etc/passwd"))
        for i, m in enumerate(rich.models)
    )
    summary = replace(
        rich,
        name=NASTY,
        space=NASTY,
        task={"name": NASTY, NASTY: [NASTY]},
        metric=NASTY,
        limit_text=NASTY,
        notes=(NASTY,),
        config=NASTY,
        strategy=NASTY,
        trials=trials,
        importance={NASTY: 0.5, "$x_2$": 0.5},
        references=tuple(replace(r, name=NASTY) for r in rich.references),
        setting=replace(rich.setting, device=NASTY, options={NASTY: NASTY}),
        values=("quality", NASTY),
    )
    folder = tmp_path / "study"
    page_folder = write(folder, replace(summary, models=()))
    data = json.loads((page_folder / "study.json").read_text())
    data["models"] = [m.to_dict() for m in models]
    (page_folder / "study.json").write_text(json.dumps(data))
    text = write_report(page_folder).read_text(encoding="utf-8")
    page = Page(text)
    assert "<script" not in text.lower()
    assert "script" not in page.tags
    assert NASTY in page.text
    assert not any(".." in link or "passwd" in link for link in page.links)


def test_report_is_replaced_and_old_plots_go(
    rich: StudySummary, empty: StudySummary, tmp_path: Path, write: Write
) -> None:
    report(tmp_path, rich, write)
    first = (tmp_path / "report.html").read_bytes()
    report(tmp_path, rich, write)
    assert (tmp_path / "report.html").read_bytes() == first
    report(tmp_path, empty, write)
    assert list((tmp_path / "plots").iterdir()) == []


def test_missing_model_files_are_not_linked(rich: StudySummary, tmp_path: Path, write: Write) -> None:
    folder = write(tmp_path, rich)
    (folder / rich.models[0].folder / "model.onnx").unlink()
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert f"{rich.models[0].folder}/model.onnx" not in page.links
    assert "model.onnx (not found)" in page.text


def test_task_is_named_by_its_data(rich: StudySummary, tmp_path: Path, write: Write) -> None:
    page = report(tmp_path, replace(rich, task={"task": "image_classification", "data": "my photographs"}), write)
    assert "Searched mobile_cnn for my photographs on onnxruntime" in page.text


def test_machine_is_that_of_the_measurements(rich: StudySummary, tmp_path: Path, write: Write) -> None:
    page = report(tmp_path, replace(rich, fingerprint=replace(rich.fingerprint, pinned=False)), write)
    assert "pinned to a core yes" in page.text


def test_no_summary_yet(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="nothing to report yet"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema": "other/1"}', '{"schema": "gnomon.study_summary/1"}', "\udcff"],
    ids=["empty", "cut", "list", "foreign", "fields", "bytes"],
)
def test_foreign_summary_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SchemaError, match=re.escape("study.json")):
        read_summary(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_folder_that_cannot_be_written(rich: StudySummary, tmp_path: Path, write: Write) -> None:
    folder = write(tmp_path, rich)
    (folder / "plots").write_text("in the way")
    with pytest.raises(StudyError, match="cannot write"):
        write_report(folder)
