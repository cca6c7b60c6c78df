"""Accuracy and loss of a torch module or an ONNX file on one split, in batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import TaskError

if TYPE_CHECKING:
    from torch import nn

    from .prepared import PreparedImages

FloatArray = npt.NDArray[np.float32]
Predict: TypeAlias = Callable[[FloatArray], FloatArray]
"""From model inputs ``(B, ...)`` to outputs ``(B, ...)``, float32."""

BATCH_SIZE = 250


def predictor(model: nn.Module | Path) -> Predict:
    """The model as a function on numpy arrays, whatever it is.

    Raises:
        TaskError: If an ONNX file is missing, damaged or not one image model.
    """
    return _onnx_predictor(Path(model)) if isinstance(model, (str, Path)) else _torch_predictor(model)


def score_images(model: nn.Module | Path, data: PreparedImages, split: str) -> dict[str, float]:
    """``accuracy`` (0..1) and ``loss`` (mean cross-entropy, nats) on a split.

    Raises:
        TaskError: If the outputs are not one logit per class.
    """
    predict, labels, raw = predictor(model), data.labels(split), data.raw(split)
    parts = []
    for start in range(0, len(labels), BATCH_SIZE):
        inputs = data.normalise(raw[start : start + BATCH_SIZE])
        parts.append(_checked_logits(predict(inputs), len(inputs), len(data.data.names)))
    return classification_metrics(np.concatenate(parts), labels)


def classification_metrics(logits: FloatArray, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Accuracy and mean cross-entropy of logits ``(N, K)``; a NaN row counts as wrong."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    right = (wide.argmax(axis=1) == labels) & np.isfinite(wide).all(axis=1)
    loss = -log_probability[np.arange(len(labels)), labels].mean()
    return {"accuracy": float(right.mean()), "loss": float(loss)}


def _checked_logits(outputs: FloatArray, n: int, classes: int) -> FloatArray:
    if outputs.shape != (n, classes):
        raise TaskError(
            "the model does not give one logit per class",
            field="output shape",
            value=tuple(outputs.shape),
            allowed=f"({n}, {classes}) for this batch",
        )
    return outputs


def _torch_predictor(model: nn.Module) -> Predict:
    import torch

    def predict(inputs: FloatArray) -> FloatArray:
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                outputs: FloatArray = model(torch.from_numpy(inputs)).float().numpy()
        except (RuntimeError, ValueError, TypeError) as error:
            raise TaskError(f"the model cannot run on inputs {inputs.shape}: {_first_line(error)}") from error
        finally:
            model.train(was_training)
        return outputs

    return predict


def _onnx_predictor(path: Path) -> Predict:
    import onnxruntime

    if not path.is_file():
        raise TaskError("no such ONNX file", field="model", value=str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime's own exceptions have no common base but Exception.
        raise TaskError(f"cannot load {path}: {_first_line(error)}") from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise TaskError(
            f"{path} is not a model of one input", field="inputs", value=[i.name for i in inputs], allowed="1"
        )
    fixed_batch = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else None

    def run(batch: FloatArray) -> Any:
        try:
            return session.run(None, {inputs[0].name: batch})[0]
        except Exception as error:
            raise TaskError(f"{path} cannot run on inputs {batch.shape}: {_first_line(error)}") from error

    def predict(batch: FloatArray) -> FloatArray:
        outputs = run(batch) if fixed_batch is None else _in_chunks(run, batch, fixed_batch)
        return np.asarray(outputs, dtype=np.float32)

    return predict


def _in_chunks(run: Callable[[FloatArray], Any], batch: FloatArray, size: int) -> Any:
    """Runs a graph of fixed batch size; the last chunk is filled up and cut again."""
    parts = []
    for start in range(0, len(batch), size):
        chunk = batch[start : start + size]
        filled = np.concatenate([chunk, np.repeat(chunk[-1:], size - len(chunk), axis=0)])
        parts.append(run(filled)[: len(chunk)])
    return np.concatenate(parts)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
