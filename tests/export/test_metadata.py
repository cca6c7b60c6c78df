from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from gnomon import __version__
from gnomon.errors import ExportError, SchemaError
from gnomon.export import ModelMetadata, read_metadata
from gnomon.search_spaces import Architecture

METADATA = ModelMetadata(
    Architecture({"_target_": "gnomon.search_spaces.mobile_cnn.MobileCNN", "classes": 3}, "0.1", {"kernel": 3}),
    task={"name": "digits", "splits": [10, 5]},
    labels=("null", "één", "二"),
    preprocessing={"scale": 255, "mean": [0.5], "std": [0.25]},
)


def save(path: Path, props: dict[str, str]) -> Path:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    for key, text in props.items():
        model.metadata_props.add(key=key, value=text)
    onnx.save(model, path)
    return path


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    props = METADATA.props() | {"author": "somebody else's key"}
    assert read_metadata(save(tmp_path / "m.onnx", props)) == METADATA


def test_props_are_readable_text() -> None:
    props = METADATA.props()
    assert props["gnomon.schema"] == "gnomon.model/1"
    assert props["gnomon.version"] == __version__
    assert '"classes": 3' in props["gnomon.architecture"]


def test_model_of_no_space(tmp_path: Path) -> None:
    assert read_metadata(save(tmp_path / "m.onnx", ModelMetadata().props())).architecture is None


@pytest.mark.parametrize(
    ("props", "error", "message"),
    [
        ({}, ExportError, "no gnomon metadata"),
        (METADATA.props() | {"gnomon.schema": "gnomon.model/99"}, SchemaError, "model/99.*allowed: gnomon.model/1"),
        (METADATA.props() | {"gnomon.labels": "[1"}, SchemaError, "gnomon.labels is not JSON"),
        (METADATA.props() | {"gnomon.colour": '"red"'}, SchemaError, "colour"),
    ],
)
def test_foreign_newer_and_damaged(props: dict[str, str], error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        read_metadata(save(tmp_path / "m.onnx", props))


def test_not_an_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    for name in ("text.onnx", "missing.onnx"):
        with pytest.raises(ExportError, match=name):
            read_metadata(tmp_path / name)
