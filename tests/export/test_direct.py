"""Directly written ONNX files against torch's answers and the graphs of torch's exporter."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from gnomon.errors import ExportError
from gnomon.export import NotDirectError, export_deployable, to_onnx_directly, to_onnx_quickly
from gnomon.export.direct import EXPORTER
from gnomon.export.onnx_export import fresh_module, to_onnx
from gnomon.search_spaces import SearchSpace, TensorSpec
from gnomon.search_spaces.fbnet import FBNet
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.nasbench_macro import NASBenchMacro
from gnomon.search_spaces.ofa_mobilenet import OFAMobileNet

MAPS = (TensorSpec("input", (1, 8, 8, 8), dynamic_axes={0: "batch"}),)

SPACES: dict[str, Callable[[], SearchSpace]] = {
    "mobile_cnn": lambda: MobileCNN((1, 28, 28), 10, width=0.5, blocks=3),
    "nasbench201": lambda: NASBench201((3, 16, 16), 10, channels=8, cells=1),
    "nasbench_macro": lambda: NASBenchMacro((3, 16, 16), 10),
    "fbnet": lambda: FBNet((3, 32, 32), 10),
    "ofa_mobilenet": OFAMobileNet,
}


class Calls(nn.Module):
    """Calls a function with the input and some layers."""

    def __init__(self, function: Callable[..., torch.Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *self.layers)


def moved(module: nn.Module) -> nn.Module:
    """In evaluation mode, with batch-norm statistics and factors that are not the initial ones."""
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
            if part.affine:
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
    return module.eval()


def operators(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def optimised(proto: onnx.ModelProto, path: Path) -> Counter[str]:
    """The operators that ONNX Runtime makes of a model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(path)
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return operators(onnx.load(path))


def assert_like_torch(proto: onnx.ModelProto, module: nn.Module, specs: tuple[TensorSpec, ...] = MAPS) -> None:
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        x = torch.randn(batch, *specs[0].shape[1:])
        with torch.no_grad():
            expected = module(x.clone()).numpy()
        found = session.run(None, {specs[0].name: x.numpy()})[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * max(np.abs(expected).max(), 1e-30))


def conv(outputs: int = 8, kernel: int = 1, inputs: int = 8, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **options)  # type: ignore[arg-type]


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "grouped": lambda: nn.Sequential(conv(12, 3, dilation=2, padding=2, groups=2), nn.BatchNorm2d(12), nn.ReLU6()),
    "depthwise": lambda: nn.Sequential(conv(8, 5, padding="same", groups=8, bias=False), nn.BatchNorm2d(8)),
    "uneven": lambda: nn.Sequential(nn.Conv2d(8, 8, (3, 1), (2, 1), padding=(1, 0)), nn.SiLU()),
    "channels_last": lambda: nn.Sequential(conv(16, 3), nn.Hardswish(inplace=True)).to(
        memory_format=torch.channels_last
    ),
    "gelu": lambda: nn.Sequential(conv(), nn.GELU(), conv(), nn.GELU("tanh")),
    "activations": lambda: nn.Sequential(nn.LeakyReLU(0.2), conv(), nn.Tanh(), conv(), nn.Sigmoid()),
    "norm_first": lambda: nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), conv(), nn.BatchNorm2d(8, affine=False)),
    "two_norms": lambda: nn.Sequential(conv(), nn.BatchNorm2d(8), nn.BatchNorm2d(8)),
    "norm_of_a_shared_map": lambda: Calls(lambda x, c, n: (lambda y: y + n(y))(c(x)), conv(), nn.BatchNorm2d(8)),
    "head": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3)),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(512, 5), nn.BatchNorm1d(5), nn.Hardsigmoid()),
    "no_bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(512, 5, bias=False)),
    "view": lambda: Calls(lambda x: x.view(x.shape[0], 4, -1).transpose(1, 2)),
    "pools": lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)),
    "average_with_padding": lambda: nn.AvgPool2d(3, 2, 1),
    "concat": lambda: Calls(lambda x, a: torch.cat([a(x), x[:, 2:6]], 1), conv(4)),
    "pad": lambda: Calls(lambda x: nn.functional.pad(x, (1, 2, 0, 0, 3, 0))),
    "arithmetic": lambda: Calls(lambda x: (x - 1.5) / 3 * torch.linspace(0, 1, 8) + 1),
    "in_place": lambda: Calls(lambda x, a: torch.relu_(a(x).add_(x)), conv()),
    "zeros": lambda: Calls(lambda x: torch.zeros_like(x) + x.mean((2, 3), keepdim=True)),
    "same_layer_twice": lambda: Calls(lambda x, a: a(a(x)), conv()),
    "identity": nn.Identity,
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_answers_like_torch(name: str) -> None:
    torch.manual_seed(0)
    module = moved(LAYERS[name]())
    proto = to_onnx_directly(module, MAPS, ("output",))
    assert_like_torch(proto, module)
    assert proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


OTHERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "unknown": (lambda: nn.ELU(), "aten.elu.default is not known"),
    "transposed": (lambda: nn.ConvTranspose2d(8, 8, 2), "transposed"),
    "own_statistics": (lambda: nn.InstanceNorm2d(8), "statistics"),
    "linear_on_maps": (lambda: nn.Linear(8, 3), "more than two dimensions"),
    "depends_on_the_batch": (lambda: Calls(lambda x: x if len(x) == 1 else x * 2), "depends on its input"),
    "depends_on_data": (lambda: Calls(lambda x: x if x.sum() > 0 else x * 2), "reads numbers out of tensors"),
    "chance": (lambda: Calls(lambda x: x + torch.rand(8)), "chance"),
    "batch_as_a_number": (lambda: Calls(lambda x: x * x.shape[0]), "depend on the size"),
    "batch_as_a_constant": (lambda: Calls(lambda x: x * torch.tensor(float(len(x)))), "depends on the size"),
    "seen_through_a_view": (
        lambda: Calls(lambda x, a: (lambda y: (y.view(-1, 512).relu_(), y)[1])(a(x)), conv()),
        "writes in place",
    ),
    "writes_to_a_parameter": (lambda: Calls(lambda x, a: x + a.weight.add_(1).sum(), conv()), "writes in place"),
    "constant_output": (lambda: Calls(lambda x, a: a.weight * 2, conv()), "does not depend on the input"),
    "not_a_tensor": (lambda: Calls(lambda x: {"y": x}), "other than tensors"),  # type: ignore[dict-item,return-value]
    "other_type": (lambda: Calls(lambda x: x.double() * 2), "not known|float64"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_known_is_never_approximated(name: str) -> None:
    factory, reason = OTHERS[name]
    with pytest.raises(NotDirectError, match=reason):
        to_onnx_directly(factory().eval(), MAPS, ("output",))


def test_wrong_interfaces() -> None:
    with pytest.raises(NotDirectError, match="1 outputs"):
        to_onnx_directly(nn.ReLU(), MAPS, ("a", "b"))
    with pytest.raises(NotDirectError, match="float32"):
        to_onnx_directly(nn.ReLU(), (TensorSpec("x", (1, 3), "int64"),), ("a",))
    with pytest.raises(NotDirectError, match="does not run"):
        to_onnx_directly(conv(inputs=3), MAPS, ("a",))


def test_several_inputs_and_outputs_without_dynamic_axes() -> None:
    class Both(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            total = a + b
            return total, total * 2, total

    specs = (TensorSpec("a", (2, 3)), TensorSpec("b", (1, 3)))
    proto = to_onnx_directly(Both(), specs, ("sum", "double", "again"))
    a, b = np.ones((2, 3), np.float32), np.full((1, 3), 2, np.float32)
    found = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"a": a, "b": b})
    for output, expected in zip(found, (3, 6, 3), strict=True):
        np.testing.assert_array_equal(output, np.full((2, 3), expected, np.float32))


def test_module_and_random_state_are_left_as_they_were() -> None:
    module = nn.Sequential(conv(), nn.BatchNorm2d(8), nn.Dropout()).train()
    state = {key: value.clone() for key, value in module.state_dict().items()}
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, second = (to_onnx_directly(module, MAPS, ("output",)).SerializeToString() for _ in range(2))
    assert first == second
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_exporter_takes_the_rest_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="gnomon"):
        proto = to_onnx_quickly(nn.Sequential(conv(), nn.ELU()).eval(), MAPS, ("output",), name="model.onnx")
    assert "model.onnx goes through torch's exporter: aten.elu.default is not known" in caplog.text
    metadata = {p.key: p.value for p in proto.metadata_props}
    assert metadata == {EXPORTER: "torch.onnx: aten.elu.default is not known"}
    assert proto.producer_name == "pytorch"


def test_a_module_that_nobody_can_export_is_an_error() -> None:
    with pytest.raises(ExportError, match="cannot export"):
        to_onnx_quickly(Calls(lambda x: x if x.sum() > 0 else x * 2), MAPS, ("output",))


def test_deployables_are_written_directly_when_asked(
    image_deployable: Callable[..., object], tiny: nn.Module, tmp_path: Path
) -> None:
    exported = export_deployable(
        image_deployable(),  # type: ignore[arg-type]
        tmp_path,
        modules={"main": tiny},
        metadata={"who": "test"},
        direct=True,
    )
    path = exported.graphs["main"].onnx_path
    assert path is not None
    model = onnx.load(path)
    assert {p.key: p.value for p in model.metadata_props} == {"who": "test", EXPORTER: "gnomon.export.direct"}
    assert_like_torch(model, tiny.eval(), exported.graphs["main"].inputs)


# ---- The exporter's graph ----------------------------------------------------------------------


def test_common_layers_are_the_exporters_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = ("grouped", "gelu", "activations", "norm_first", "two_norms", "pad", "linear")
    shaped = [moved(LAYERS[name]()) for name in names]
    shaped[0] = nn.Sequential(shaped[0], conv(8, inputs=12))
    shaped[-2] = nn.Sequential(shaped[-2], nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(11, 512))
    module = nn.Sequential(*shaped).eval()
    quick, slow = to_onnx_directly(module, MAPS, ("output",)), to_onnx(module, MAPS, ("output",))
    assert operators(quick) == operators(slow)
    assert optimised(quick, tmp_path / "quick.onnx") == optimised(slow, tmp_path / "slow.onnx")


@pytest.mark.parametrize(
    "name", [n if n in ("mobile_cnn", "nasbench201") else pytest.param(n, marks=pytest.mark.slow) for n in SPACES]
)
def test_every_space_is_the_exporters_graph(name: str, tmp_path: Path) -> None:
    """With fresh weights, as architectures are measured: the exporter leaves out biases that are zero."""
    space = SPACES[name]()
    graph = space.deployable(space.config(space.sample(1, np.random.default_rng(3))[0])).graphs["main"]
    module = fresh_module(graph)
    quick, slow = (write(module, graph.inputs, graph.outputs) for write in (to_onnx_directly, to_onnx))
    assert operators(quick) == operators(slow)
    assert optimised(quick, tmp_path / "quick.onnx") == optimised(slow, tmp_path / "slow.onnx")
    quick_weights, slow_weights = ({weight.name for weight in proto.graph.initializer} for proto in (quick, slow))
    assert {weight for weight in slow_weights if weight.endswith("weight")} <= quick_weights
    assert abs(quick.ByteSize() - slow.ByteSize()) < 0.1 * slow.ByteSize()


def test_cells_with_zeros_are_the_exporters_graph(tmp_path: Path) -> None:
    """A node without edges is zeros of a map's shape; a last convolution is followed by two batch norms."""
    space = SPACES["nasbench201"]()
    choices = ("nor_conv_3x3", "none", "none", "none", "none", "nor_conv_3x3")
    config = {decision.name: choice for decision, choice in zip(space.decisions, choices, strict=True)}
    graph = space.deployable(config).graphs["main"]
    module = moved(fresh_module(graph))
    quick, slow = (write(module, graph.inputs, graph.outputs) for write in (to_onnx_directly, to_onnx))
    assert operators(quick) == operators(slow)
    assert optimised(quick, tmp_path / "quick.onnx") == optimised(slow, tmp_path / "slow.onnx")
    assert_like_torch(quick, module, graph.inputs)
