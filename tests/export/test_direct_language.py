"""Language models put together from operators that were exported once, against torch's exporter."""

from collections import Counter
from dataclasses import replace

import onnx
import onnxruntime
import pytest
import torch

from gnomon.export import check_exported, export_deployable
from gnomon.export.direct import EXPORTER
from gnomon.search_spaces.hybrid_slm.free import HybridSLMFree

SIZES = {"widths": [16], "head_sizes": [4], "kv_heads": [1], "ffns": [0, 1], "vocabulary": 20, "max_length": 40}
FIRST = {"layer1.mixer": "attention", "layer1.ffns": 1}


@pytest.fixture(scope="module")
def space():
    return HybridSLMFree(mixers=["attention", "gla"], layers=[1, 2], meta_tokens=[0], tied=[False], **SIZES)


def written(space, config, folder, direct=True):
    torch.manual_seed(3)
    modules = space.graph_modules(space.build(config).eval())
    exported = export_deployable(space.deployable(config), folder, modules=modules, direct=direct)
    return exported, modules


def run_by_onnxruntime(path, folder):
    """Operators that ONNX Runtime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def test_pieces_carry_the_networks_own_weights(space, tmp_path):
    """Equal operators at different places are one piece with different weights."""
    config = {"layers": 2, **FIRST, "layer2.mixer": "attention", "layer2.ffns": 1}
    exported, modules = written(space, config, tmp_path)
    assert check_exported(exported, modules) < 1e-5
    proto = onnx.load(str(exported.graphs["step"].onnx_path))
    weights = {tensor.name for tensor in proto.graph.initializer}
    assert {"branches.0.body.q.weight", "branches.2.body.q.weight", "embedding.weight", "head.weight"} <= weights
    assert {entry.key: entry.value for entry in proto.metadata_props}[EXPORTER] == "gnomon.export.direct"


def test_pieces_are_exported_once(space, tmp_path, monkeypatch):
    from gnomon.export import direct_language

    written(space, {"layers": 1, **FIRST}, tmp_path)
    calls = []
    monkeypatch.setattr(direct_language, "to_onnx", lambda *arguments, **_: calls.append(arguments))
    written(space, {"layers": 2, **FIRST, "layer2.mixer": "attention", "layer2.ffns": 0}, tmp_path)
    assert not calls


def test_tied_weights_are_in_the_file_once(space, tmp_path):
    tied = HybridSLMFree(**{**space.arguments(), "tied": [True], "layers": [1]})
    exported, modules = written(tied, {"layer1.mixer": "attention", "layer1.ffns": 1}, tmp_path)
    assert check_exported(exported, modules) < 1e-5
    proto = onnx.load(str(exported.graphs["step"].onnx_path))
    assert sum(list(tensor.dims) == [20, 16] for tensor in proto.graph.initializer) == 1


@pytest.mark.slow
def test_onnxruntime_runs_the_same_operators(space, tmp_path):
    config = {"layers": 1, **FIRST}
    found = {}
    for direct in (True, False):
        folder = tmp_path / str(direct)
        folder.mkdir()
        exported, _ = written(space, config, folder, direct)
        found[direct] = {name: run_by_onnxruntime(graph.onnx_path, folder) for name, graph in exported.graphs.items()}
    assert found[True]["step"] == found[False]["step"]
    quick, whole = found[True]["prefill"], found[False]["prefill"]
    assert set((quick - whole) + (whole - quick)) <= {"Shape", "Add", "Expand"}, "more than how the position is counted"


def test_routers_and_meta_tokens_are_written_too(tmp_path):
    space = HybridSLMFree(mixers=["attention"], layers=[1], meta_tokens=[2], skips=[True], **{**SIZES, "ffns": [0]})
    exported, modules = written(space, {}, tmp_path)
    assert check_exported(exported, modules) < 1e-5
    whole = space.deployable({}, replace(space.workload, phase=""))
    assert "operator1_gate" in [spec.name for spec in whole.graphs["step"].inputs]
