from __future__ import annotations

import dataclasses
import gc
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from gnomon.errors import ExportError, StudyError
from gnomon.export import export_deployable
from gnomon.export.onnx_export import evaluation_mode, to_onnx
from gnomon.search_spaces import Call, Deployable, Graph, TensorSpec, Workload

MakeDeployable = Callable[..., Deployable]


@pytest.fixture(scope="module")
def exported(image_deployable: MakeDeployable, tmp_path_factory: pytest.TempPathFactory) -> Deployable:
    return export_deployable(image_deployable(), tmp_path_factory.mktemp("onnx"), metadata={"who": "test"})


def path_of(deployable: Deployable) -> Path:
    path = deployable.graphs["main"].onnx_path
    assert path is not None
    return path


def test_keeps_what_a_device_needs(
    exported: Deployable, image_deployable: MakeDeployable, image_specs: tuple[TensorSpec, ...]
) -> None:
    original = image_deployable()
    assert (exported.name, exported.workload, exported.plan) == (original.name, original.workload, original.plan)
    graph = exported.graphs["main"]
    assert graph.module is None
    assert path_of(exported).name == "model.onnx"
    assert (graph.inputs, graph.outputs) == (image_specs, ("output",))


def test_file_states_opset_names_batch_and_metadata(exported: Deployable) -> None:
    model = onnx.load(path_of(exported))
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    assert [p.key for p in model.metadata_props] == ["who"]
    for value, rest in ((model.graph.input[0], [1, 8, 8]), (model.graph.output[0], [3])):
        dims = value.type.tensor_type.shape.dim
        assert dims[0].dim_param == "batch"
        assert [d.dim_value for d in dims[1:]] == rest


def test_file_has_no_leftovers_and_no_trace_of_the_machine(exported: Deployable) -> None:
    path = path_of(exported)
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    content = path.read_bytes()
    for trace in (b"conftest", b".py", b"site-packages", b"stack_trace", b"torch.nn"):
        assert trace not in content


def test_batch_norm_is_folded(exported: Deployable) -> None:
    operators = {node.op_type for node in onnx.load(path_of(exported)).graph.node}
    assert "Conv" in operators
    assert not operators & {"BatchNormalization", "Dropout"}


def test_same_architecture_gives_the_same_file_and_leaves_the_random_state(
    exported: Deployable, tmp_path: Path, image_deployable: MakeDeployable
) -> None:
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    again = export_deployable(image_deployable(), tmp_path, metadata={"who": "test"})
    assert again.id == exported.id
    assert torch.equal(torch.random.get_rng_state(), before)


def test_given_module_is_exported_and_left_in_its_modes(
    tmp_path: Path, image_deployable: MakeDeployable, tiny: nn.Module
) -> None:
    module = tiny.train()
    module.get_submodule("features.1").eval()  # a frozen batch norm
    modes = [part.training for part in module.modules()]
    exported = export_deployable(image_deployable(), tmp_path, modules={"main": module})
    assert [part.training for part in module.modules()] == modes
    x = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        expected = module.eval()(x).numpy()
    found = onnxruntime.InferenceSession(str(path_of(exported))).run(None, {"input": x.numpy()})[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_evaluation_mode_is_undone_after_an_error(tiny: nn.Module) -> None:
    module = tiny.train()
    seen = []

    def fail() -> None:
        with evaluation_mode(module):
            seen.append(module.training)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [False]
    assert all(part.training for part in module.modules())


class Doubler(nn.Module):
    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return state * 2


def test_graphs_of_a_plan_become_files_by_name(tmp_path: Path) -> None:
    specs = (TensorSpec("state", (4,)),)
    plan = (Call("encoder"), Call("step", times=3, feeds={"out": "state"}))
    graphs = {name: Graph(specs, ("out",), module=Doubler) for name in ("encoder", "step")}
    exported = export_deployable(Deployable("plan", Workload((4,)), graphs, plan), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.onnx", "step.onnx"]
    assert exported.plan == plan
    fixed = onnx.load(tmp_path / "step.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in fixed] == [4]


def test_an_onnx_graph_is_kept_as_it_is(exported: Deployable, tmp_path: Path) -> None:
    assert export_deployable(exported, tmp_path) == exported
    assert list(tmp_path.iterdir()) == []


class DataDependent(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else x * 2


def test_failure_is_one_quiet_line_and_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], image_deployable: MakeDeployable
) -> None:
    with pytest.raises(ExportError, match=r"cannot export model\.onnx: \w+: .*data-dependent") as caught:
        export_deployable(image_deployable(DataDependent), tmp_path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert gc.isenabled()


def test_success_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str], image_deployable: MakeDeployable) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_deployable(image_deployable(Doubler, (TensorSpec("input", (4,)),)), tmp_path)
    assert capfd.readouterr() == ("", "")


class IgnoresSecond(nn.Module):
    def forward(self, x: torch.Tensor, unused: torch.Tensor) -> torch.Tensor:
        return x + 1


class TwoOutputs(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + 1, x * 2


class FixedLength(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[i] for i in range(len(x))])


@pytest.mark.parametrize(
    ("module", "specs", "outputs"),
    [
        (TwoOutputs(), (TensorSpec("x", (2, 3)),), ("out",)),
        (FixedLength(), (TensorSpec("x", (2, 3), dynamic_axes={0: "batch"}),), ("out",)),
    ],
    ids=["outputs", "fixed_axis"],
)
def test_interface_other_than_stated_is_refused(
    module: nn.Module, specs: tuple[TensorSpec, ...], outputs: tuple[str, ...]
) -> None:
    with pytest.raises(ExportError):
        to_onnx(module, specs, outputs)


def test_an_unused_input_stays_an_input() -> None:
    specs = (TensorSpec("x", (2,)), TensorSpec("unused", (2,)))
    proto = to_onnx(IgnoresSecond(), specs, ("out",))
    assert [value.name for value in proto.graph.input] == ["x", "unused"]


def test_integer_inputs(tmp_path: Path) -> None:
    specs = (TensorSpec("tokens", (1, 6), "int64", {0: "batch", 1: "length"}),)
    deployable = Deployable("lm", Workload((6,)), {"main": Graph(specs, ("out",), lambda: nn.Embedding(2, 4))})
    path = path_of(export_deployable(deployable, tmp_path))
    out = onnxruntime.InferenceSession(str(path)).run(None, {"tokens": np.zeros((3, 9), np.int64)})[0]
    assert out.shape == (3, 9, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modules": {"decoder": nn.Identity()}}, "modules=.*decoder.*allowed: main"),
        ({"opset": 1}, "opset"),
    ],
)
def test_wrong_arguments(
    change: dict[str, object], message: str, tmp_path: Path, image_deployable: MakeDeployable
) -> None:
    with pytest.raises(ExportError, match=message):
        export_deployable(image_deployable(), tmp_path, **change)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_unknown_dtype_and_missing_module(
    tmp_path: Path, image_deployable: MakeDeployable, image_specs: tuple[TensorSpec, ...]
) -> None:
    odd = dataclasses.replace(image_specs[0], dtype="float33")
    with pytest.raises(ExportError, match="float33"):
        export_deployable(image_deployable(specs=(odd,)), tmp_path)
    with pytest.raises(ExportError, match="neither"):
        export_deployable(image_deployable(factory=None), tmp_path)


def test_folder_that_cannot_be_written(tmp_path: Path, image_deployable: MakeDeployable) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot write"):
        export_deployable(image_deployable(Doubler, (TensorSpec("input", (4,)),)), tmp_path / "file" / "folder")


def test_a_fresh_network_answers_something_and_the_same_each_time():
    from gnomon.export.onnx_export import example_inputs, fresh_module
    from gnomon.search_spaces.mobile_cnn import MobileCNN

    space = MobileCNN((3, 32, 32), 10, width=0.5)
    graph = space.deployable(space.named["mobilenet_v2"]).graphs["main"]
    first, second = fresh_module(graph), fresh_module(graph)
    for one, two in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    images = example_inputs(graph.inputs, first, {"batch": 8}, seed=1)
    with torch.no_grad():
        answers = first.eval()(*images)
    assert answers.std(dim=0).mean() > 1e-2, "different images hardly differ in their answers"
    norms = [part for part in first.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert all(part.momentum == 0.1 for part in norms)


def test_settling_keeps_modes_and_leaves_fixed_batches_alone():
    from gnomon.export.onnx_export import settle_batch_norm

    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).train()
    before = module[1].running_var.clone()
    settle_batch_norm(module, (TensorSpec("input", (1, 2, 8, 8)),))
    assert torch.equal(module[1].running_var, before)
    settle_batch_norm(module, (TensorSpec("input", (1, 2, 8, 8), dynamic_axes={0: "batch"}),))
    assert not torch.equal(module[1].running_var, before)
    assert module.training
    assert module[1].training
