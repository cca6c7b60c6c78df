"""Architectures of fbnet and ofa_mobilenet through the dynamo exporter, at two batch sizes."""

import numpy as np
import pytest
import torch

from gnomon.search_spaces.fbnet import FBNet
from gnomon.search_spaces.ofa_mobilenet import OFAMobileNet

ort = pytest.importorskip("onnxruntime")

SPACES = {
    "fbnet": lambda: FBNet((3, 32, 32), classes=10, width=0.5, head_filters=128),
    "ofa_mobilenet": lambda: OFAMobileNet((3, 48, 48), classes=10, width=0.5, resolutions=[32, 40, 48]),
}


def exported(space, config, path):
    """The model with batch norm's statistics moved, and a session of its file."""
    (spec,) = space.deployable(config).graphs["main"].inputs
    model = space.build(config)
    with torch.no_grad():
        model.train()(torch.randn(8, *spec.shape[1:]))
    model.eval()
    torch.onnx.export(
        model,
        (torch.randn(2, *spec.shape[1:]),),
        path,
        dynamo=True,
        verbose=False,
        input_names=["input"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    return model, ort.InferenceSession(path, providers=["CPUExecutionProvider"]), spec.shape[1:]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "network"),
    [("fbnet", None), ("fbnet", "all_k3_e1_g2"), ("ofa_mobilenet", None), ("ofa_mobilenet", "smallest")],
    ids=["fbnet, random", "fbnet, groups with their shuffle", "ofa_mobilenet, random", "ofa_mobilenet, smallest"],
)
def test_onnx_answers_like_torch(name, network, tmp_path):
    """None is a random network. No graph resizes its input: what is measured gets it in the network's resolution."""
    onnx = pytest.importorskip("onnx")
    space = SPACES[name]()
    torch.manual_seed(0)
    row = space.sample(1, np.random.default_rng(0))[0] if network is None else space.named_genotype(network)
    model, session, shape = exported(space, space.config(row), tmp_path / "model.onnx")
    for batch in (1, 3):
        x = torch.randn(batch, *shape)
        (answer,) = session.run(None, {"input": x.numpy()})
        np.testing.assert_allclose(answer, model(x).detach().numpy(), atol=1e-4)
    assert "Resize" not in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
