"""Latency and memory of generation by language models: tables of operators, closed forms, rooflines, metrics."""

from .closed_forms import DecodeForm, GenerationForm, PrefillForm, fit_decode, fit_prefill
from .memory import peak_bytes, state_bytes, state_bytes_per_token, weight_bytes
from .metrics import (
    GenerationMetrics,
    generation_metrics,
    ms_per_token,
    peak_memory_bytes,
    time_to_first_token_ms,
    tokens_per_s,
)
from .operator_table import Entry, OperatorTable, TableSource
from .parts import Part
from .predictors import OperatorTablePredictor, RooflinePredictor
from .roofline import Roofline
from .table_plan import TableModel, TablePlan
from .work import Phase, model_work

__all__ = [
    "DecodeForm",
    "Entry",
    "GenerationForm",
    "GenerationMetrics",
    "OperatorTable",
    "OperatorTablePredictor",
    "Part",
    "Phase",
    "PrefillForm",
    "Roofline",
    "RooflinePredictor",
    "TableModel",
    "TablePlan",
    "TableSource",
    "fit_decode",
    "fit_prefill",
    "generation_metrics",
    "model_work",
    "ms_per_token",
    "peak_bytes",
    "peak_memory_bytes",
    "state_bytes",
    "state_bytes_per_token",
    "time_to_first_token_ms",
    "tokens_per_s",
    "weight_bytes",
]
