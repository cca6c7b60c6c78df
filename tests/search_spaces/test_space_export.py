"""Models of every space through the dynamo exporter, at two batch sizes."""

import numpy as np
import pytest
import torch

from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.nasbench_macro import NASBenchMacro

ort = pytest.importorskip("onnxruntime")

SPACES = {
    "mobile_cnn": lambda: MobileCNN((1, 28, 28), classes=10, width=0.5, blocks=3),
    "nasbench201": lambda: NASBench201((3, 16, 16), classes=10, channels=8, cells=1),
    "nasbench_macro": lambda: NASBenchMacro((3, 16, 16), classes=10),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", [0, 1])
def test_onnx_answers_like_torch(name, seed, tmp_path):
    space = SPACES[name]()
    torch.manual_seed(seed)
    shape = space.workload.input_shape
    model = space.build(space.config(space.sample(1, np.random.default_rng(seed))[0]))
    with torch.no_grad():
        model.train()(torch.randn(8, *shape))  # statistics other than 0 and 1 in batch norm
    model.eval()
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        model,
        (torch.randn(2, *shape),),
        path,
        dynamo=True,
        verbose=False,
        input_names=["input"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = torch.randn(batch, *shape)
        (answer,) = session.run(None, {"input": x.numpy()})
        np.testing.assert_allclose(answer, model(x).detach().numpy(), atol=1e-4)
