from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from gnomon.errors import ExportError
from gnomon.export import check_exported, check_onnx, export_deployable
from gnomon.search_spaces import Deployable, TensorSpec


@pytest.fixture(scope="module")
def pair(
    image_deployable: Callable[..., Deployable], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Deployable, nn.Module]:
    torch.manual_seed(0)
    module = image_deployable().graphs["main"].module()  # type: ignore[misc]
    exported = export_deployable(image_deployable(), tmp_path_factory.mktemp("pair"), modules={"main": module})
    return exported, module


def path_of(deployable: Deployable) -> Path:
    path = deployable.graphs["main"].onnx_path
    assert path is not None
    return path


def test_faithful_export_has_a_tiny_error(pair: tuple[Deployable, nn.Module]) -> None:
    exported, module = pair
    assert 0 <= check_exported(exported, {"main": module}) < 1e-5
    assert module.training  # left as it came


def test_other_weights_are_noticed_and_the_number_named(
    pair: tuple[Deployable, nn.Module], image_specs: tuple[TensorSpec, ...]
) -> None:
    other = copy.deepcopy(pair[1])
    with torch.no_grad():
        other.get_parameter("head.bias")[1] += 0.25
    with pytest.raises(ExportError, match=r"tolerance=0.0001: .*differ by up to 0\.25"):
        check_onnx(path_of(pair[0]), other, image_specs)
    assert check_onnx(path_of(pair[0]), other, image_specs, tolerance=0.3) == pytest.approx(0.25, abs=1e-4)


def test_nan_is_never_within_the_tolerance(
    pair: tuple[Deployable, nn.Module], image_specs: tuple[TensorSpec, ...]
) -> None:
    other = copy.deepcopy(pair[1])
    with torch.no_grad():
        other.get_parameter("head.bias")[0] = torch.nan
    with pytest.raises(ExportError, match="nan"):
        check_onnx(path_of(pair[0]), other, image_specs)


def save(path: Path, nodes: list[onnx.NodeProto], shape: list[int | str], out: list[int | str]) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, out)],
        [helper.make_tensor("two", TensorProto.INT64, [2], [1, 64])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_batch_that_was_fixed_in_the_graph_is_noticed(tmp_path: Path, image_specs: tuple[TensorSpec, ...]) -> None:
    """A Reshape to (1, 64) answers well at batch 1 and only there."""
    nodes = [helper.make_node("Reshape", ["input", "two"], ["output"])]
    path = save(tmp_path / "fixed.onnx", nodes, ["batch", 1, 8, 8], ["batch", 64])
    assert check_onnx(path, nn.Flatten(), image_specs, batches=(1,)) == 0.0
    with pytest.raises(ExportError, match="cannot run fixed"):
        check_onnx(path, nn.Flatten(), image_specs)


def test_other_output_shape_is_noticed(tmp_path: Path, image_specs: tuple[TensorSpec, ...]) -> None:
    nodes = [helper.make_node("Identity", ["input"], ["output"])]
    path = save(tmp_path / "identity.onnx", nodes, ["batch", 1, 8, 8], ["batch", 1, 8, 8])
    assert check_onnx(path, nn.Identity(), image_specs) == 0.0
    with pytest.raises(ExportError, match="other shapes"):
        check_onnx(path, nn.Flatten(), image_specs)


def test_static_inputs_are_run_at_their_shape(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["input"], ["output"])]
    path = save(tmp_path / "static.onnx", nodes, [2, 5], [2, 5])
    assert check_onnx(path, nn.Identity(), (TensorSpec("input", (2, 5)),)) == 0.0


def test_damaged_missing_and_invalid_files(
    tmp_path: Path, pair: tuple[Deployable, nn.Module], image_specs: tuple[TensorSpec, ...]
) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(path_of(pair[0]).read_bytes()[:-100])
    invalid = save(tmp_path / "op.onnx", [helper.make_node("NoSuchOp", ["input"], ["output"])], ["batch", 4], ["batch"])
    for path in (damaged, tmp_path / "missing.onnx", invalid):
        with pytest.raises(ExportError, match=path.name) as caught:
            check_onnx(path, pair[1], image_specs)
        assert "\n" not in str(caught.value)


def test_graph_that_was_not_exported(image_deployable: Callable[..., Deployable], tiny: nn.Module) -> None:
    with pytest.raises(ExportError, match="not exported"):
        check_exported(image_deployable(), {"main": tiny})
