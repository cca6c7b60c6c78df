from __future__ import annotations

import json

import numpy as np
import pytest

from gnomon.errors import PredictorError, SchemaError
from gnomon.predictors import AnalyticPredictor, Provenance, load_model, save_model
from gnomon.search_spaces.nasbench201 import NASBench201


@pytest.fixture
def saved(tmp_path):
    predictor = AnalyticPredictor(NASBench201())
    rows = predictor.references(6)
    model = predictor.adapt(rows, np.arange(1.0, 7.0))
    save_model(tmp_path, model, Provenance("raspi4", "analytic", tuple(predictor.space.keys(rows)), (1.0,) * 6))
    return tmp_path


def edit(folder, **changes):
    path = folder / "latency_model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_no_pickle_inside(saved):
    with np.load(saved / "latency_model.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype == np.float64 for name in arrays.files)


def test_provenance_says_where_it_comes_from(saved):
    _, provenance = load_model(saved)
    assert provenance.setting == "raspi4"
    assert len(provenance.architectures) == len(provenance.latencies_ms) == 6


def test_damaged_arrays_are_noticed(saved):
    path = saved / "latency_model.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(PredictorError, match="differs"):
        load_model(saved)


def test_missing_files(saved):
    (saved / "latency_model.npz").unlink()
    with pytest.raises(PredictorError, match="cannot read"):
        load_model(saved)
    with pytest.raises(SchemaError, match="cannot read"):
        load_model(saved / "nowhere")


@pytest.mark.parametrize("model", ["os.path.join", "gnomon.no_such.Model", "", "gnomon.predictors.AnalyticPredictor"])
def test_only_latency_models_are_made(saved, model):
    edit(saved, model=model)
    with pytest.raises(PredictorError, match="model"):
        load_model(saved)


def test_other_versions_are_refused(saved):
    edit(saved, schema="gnomon.latency_model/99")
    with pytest.raises(SchemaError, match="schema"):
        load_model(saved)


def test_a_model_of_another_space_is_refused(saved):
    edit(saved, space={"_target_": "gnomon.search_spaces.nasbench_macro.NASBenchMacro"})
    with pytest.raises(PredictorError, match="features"):
        load_model(saved)


def test_unwritable_folder(saved):
    file = saved / "file"
    file.write_text("")
    model, provenance = load_model(saved)
    with pytest.raises(PredictorError, match="cannot write"):
        save_model(file / "below", model, provenance)
