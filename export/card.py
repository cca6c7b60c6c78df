"""The model card: what a file is, what it scores, how fast it is, and how to use it.

Kept twice: ``card.md`` for people, ``card.json`` for programs and for writing the card again once
verification or test results are known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .. import __version__
from ..records import Measurement, Workload
from ..schema import Record, read_json, write_json, write_text
from .metadata import ModelMetadata

CARD_JSON = "card.json"
CARD_MARKDOWN = "card.md"


@dataclass(frozen=True)
class ModelCard(Record):
    """The facts of one exported model. Unknown figures are left out of the card, never guessed.

    Args:
        name: Title of the card, for example the architecture's key.
        metadata: What the ONNX file says of itself.
        metric: Name of the task's figure in ``validation`` and ``test``, larger is better.
        validation, test: Figures by name on each split; the search saw validation only.
        fp32: The same by split of the model before the device's runtime quantised it; empty if it does not.
        fp32_file: Name of the file before that, where it is another.
        training: How it was trained: ``budget``, ``budget_unit``, ``seed`` and more.
        costs: Analytic costs by name (``parameters``, ``macs`` ...), at batch 1.
        predicted_ms, predicted_std_ms: Latency as the search predicted it.
        measurement: Of the very file beside the card.
        inputs: Type and shape of each input by name, in order; axes that may vary by their name.
        outputs: Names of the outputs.
        max_abs_error: Largest difference between ONNX Runtime's and torch's outputs.
        files: Names of the ONNX files.
        created: When, ISO 8601.
    """

    SCHEMA: ClassVar[str] = "gnomon.model_card/1"

    name: str
    metadata: ModelMetadata
    metric: str = ""
    validation: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    fp32: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    fp32_file: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    predicted_ms: float | None = None
    predicted_std_ms: float | None = None
    measurement: Measurement | None = None
    inputs: Mapping[str, tuple[str, tuple[int | str, ...]]] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    opset: int | None = None
    max_abs_error: float | None = None
    files: tuple[str, ...] = ("model.onnx",)
    has_config: bool = False
    created: str = ""


def write_card(folder: Path, card: ModelCard) -> None:
    """Writes, or replaces, ``card.json`` and ``card.md``, each atomically.

    Raises:
        StudyError: If the folder cannot be written.
    """
    write_json(folder / CARD_JSON, ModelCard.SCHEMA, card.to_dict())
    write_text(folder / CARD_MARKDOWN, render_card(card))


def read_card(folder: Path) -> ModelCard:
    """The facts behind ``card.md``.

    Raises:
        SchemaError: If there is no card, or it is damaged or of another schema.
    """
    return ModelCard.from_dict({"schema": ModelCard.SCHEMA, **read_json(folder / CARD_JSON, ModelCard.SCHEMA)})


def render_card(card: ModelCard) -> str:
    """The card as Markdown."""
    sections = (
        _head(card),
        _interface(card),
        _scores(card),
        _latency(card),
        _costs(card),
        _use_onnx(card),
        _use_sequences(card),
        _use_language(card),
        _use_torch(card),
        _train_again(card),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(card: ModelCard) -> str:
    architecture = card.metadata.architecture
    lines = [f"# {card.name}", ""]
    task = card.metadata.task.get("name", "")
    what = f"A model for the task `{task}`" if task else "A model"
    if architecture is not None:
        space = str(architecture.space.get("_target_", "")).rpartition(".")[2]
        what += f", architecture `{architecture.key}` of the search space `{space}`"
    made = f"exported by gnomon {card.metadata.version or __version__}"
    lines.append(f"{what}; {made}{f' on {card.created}' if card.created else ''}.")
    if card.max_abs_error is not None:
        lines += ["", f"ONNX Runtime's outputs differ from torch's by at most {card.max_abs_error:.1e}."]
    if architecture is not None:
        rows = [(name, f"`{choice}`") for name, choice in architecture.config.items()]
        lines += ["", "<details><summary>Choices</summary>", "", _table(("decision", "choice"), rows), "", "</details>"]
    return "\n".join(lines)


def _interface(card: ModelCard) -> str:
    lines = ["## Input and output", ""]
    lines += [f"- input `{name}`: {dtype} {_shape(shape)}" for name, (dtype, shape) in card.inputs.items()]
    lines += [f"- output `{name}`" for name in card.outputs]
    if len(card.files) > 1:
        lines.append(
            f"- these are of `{card.files[0]}`, which runs first; inputs of others have the names of its outputs"
        )
    if card.opset is not None:
        lines.append(f"- ONNX opset {card.opset}, files: {', '.join(f'`{name}`' for name in card.files)}")
    if card.metadata.preprocessing:
        rows = [(key, f"`{json.dumps(value)}`") for key, value in card.metadata.preprocessing.items()]
        lines += ["", "Preprocessing:", "", _table(("step", "value"), rows)]
    if card.metadata.labels:
        lines += ["", "Labels, in the order of the outputs: " + ", ".join(f"`{x}`" for x in card.metadata.labels) + "."]
    return "\n".join(lines)


def _scores(card: ModelCard) -> str:
    if not card.validation and not card.test:
        return ""
    names = list(dict.fromkeys([*([card.metric] if card.metric else []), *card.validation, *card.test]))
    columns = {"validation": card.validation, "test": card.test}
    columns |= {f"{split} in fp32": card.fp32[split] for split in ("validation", "test") if split in card.fp32}
    rows = [(name, *(_figure(scores.get(name)) for scores in columns.values())) for name in names]
    text = "## Scores\n\n" + _table(("metric", *columns), rows)
    if card.fp32:
        before = f" `{card.fp32_file}` is the model before that." if card.fp32_file else ""
        text += f"\n\nOf the model as the device computes it, beside what was trained.{before}"
    return text + "\n\nThe search chose by validation; test examples were never seen by it."


def _latency(card: ModelCard) -> str:
    rows: list[tuple[str, ...]] = []
    if card.predicted_ms is not None:
        spread = f" ± {card.predicted_std_ms:.3g}" if card.predicted_std_ms is not None else ""
        rows.append(("predicted before it was built", f"{card.predicted_ms:.4g}{spread} ms"))
    measurement = card.measurement
    if measurement is None or measurement.verdict == "failed":
        if measurement is not None:
            rows.append(("measured", f"failed: {measurement.error}"))
        return "## Latency\n\n" + _table(("", ""), rows) if rows else ""
    interval = measurement.interval
    shown = f", 90 % interval {interval[0]:.4g} to {interval[1]:.4g} ms" if interval else ""
    rows.append(("measured, this very file", f"**{measurement.latency_ms:.4g} ms** ({measurement.statistic}{shown})"))
    others = [(s, getattr(measurement, s)) for s in ("minimum", "p10", "median", "p90")]
    rows.append(("all statistics", ", ".join(f"{name} {value:.4g}" for name, value in others if value is not None)))
    if len(measurement.parts) > 1:
        parts = ", ".join(f"`{name}` {value:.4g} ms" for name, value in measurement.parts.items())
        rows.append(("all calls of each file together", parts))
    rows.append(("verdict", measurement.verdict))
    rows += _conditions(measurement)
    return "## Latency\n\n" + _table(("", ""), rows)


def _conditions(measurement: Measurement) -> list[tuple[str, ...]]:
    setting, machine = measurement.setting, measurement.fingerprint
    rows: list[tuple[str, ...]] = [
        ("device", f"{setting.device}: {setting.hardware}, {setting.runtime}"),
        ("threads, precision, batch", f"{setting.threads}, {setting.precision}, {setting.workload.batch}"),
        *_lengths(setting.workload),
        ("processes, runs", f"{len(measurement.process_values)}, {measurement.n_runs}"),
        ("machine", f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.1f} GiB, {machine.os}"),
        ("runtime", machine.runtime),
        (
            "governor, load, pinned",
            f"{machine.governor or 'unknown'}, {_figure(machine.load_1min) or 'unknown'}, {machine.pinned}",
        ),
        ("setting, protocol", f"`{setting.id}`, `{measurement.protocol}`"),
        ("when", measurement.timestamp),
    ]
    if measurement.peak_memory_bytes is not None:
        rows.append(("peak memory", f"{measurement.peak_memory_bytes / 2**20:.1f} MiB"))
    if measurement.energy_mj is not None:
        rows.append(("energy", f"{measurement.energy_mj:.4g} mJ"))
    return rows


def _lengths(workload: Workload) -> list[tuple[str, ...]]:
    """What a latency of sequences is of."""
    if workload.generated_length is None:
        return []
    sizes = f"{workload.source_length}, {workload.generated_length}, {workload.beam}"
    return [("tokens read, tokens written, beams", sizes)]


def _costs(card: ModelCard) -> str:
    if not card.costs:
        return ""
    return "## Costs\n\n" + _table(("cost", "value"), [(name, f"{value:,.0f}") for name, value in card.costs.items()])


def _use_onnx(card: ModelCard) -> str:
    if len(card.files) != 1 or not card.inputs:
        return ""
    feeds = ", ".join(
        f'"{name}": np.zeros({_numbers(shape)}, np.{dtype})' for name, (dtype, shape) in card.inputs.items()
    )
    lines = [
        "import numpy as np",
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession("{card.files[0]}", providers=["CPUExecutionProvider"])',
        f"inputs = {{{feeds}}}  # preprocessed as above",
        "outputs = session.run(None, inputs)",
    ]
    if card.metadata.labels:
        lines += [f"labels = {list(card.metadata.labels)!r}", "print([labels[i] for i in outputs[0].argmax(axis=1)])"]
    return _code("## Use it with ONNX Runtime", "Run in this folder:", lines)


def _use_sequences(card: ModelCard) -> str:
    """Of a model that writes sequences: several files, and tokenizers beside them."""
    if len(card.files) < 2 or "tokenizers" not in card.metadata.preprocessing:
        return ""
    lines = [
        "from gnomon.tasks.sequences.onnx_model import OnnxSequenceToSequence",
        "from gnomon.tasks.sequences.translator import Translator",
        "",
        'translator = Translator.of_folder(".", OnnxSequenceToSequence("."))',
        'print(translator.translate(["a source"], beam=1))',
    ]
    text = 'From a shell: `gnomon translate from=. "a source"`. From Python, in this folder:'
    return _code("## Use it with ONNX Runtime", text, lines)


def _use_language(card: ModelCard) -> str:
    """Of a model that writes on: two files whose metadata say how they fit together."""
    if not card.metadata.interface or card.files != ("prefill.onnx", "step.onnx"):
        return ""
    lines = [
        "from gnomon.tasks.language.generation import Generator",
        "from gnomon.tasks.language.onnx_model import OnnxLanguageModel",
        "from gnomon.tasks.language.text_tokenizer import TextTokenizer",
        "",
        'tokenizer = TextTokenizer.of_folder(".")',
        'generator = Generator(OnnxLanguageModel("."))',
        'prompt = [1, *tokenizer.encode("def main(")]  # 1 begins a text',
        "print(tokenizer.decode(generator.generate(prompt, 64)))",
    ]
    text = 'From a shell: `gnomon generate from=. "def main("`. From Python, in this folder:'
    return _code("## Use it with ONNX Runtime", text, lines)


def _use_torch(card: ModelCard) -> str:
    if card.metadata.architecture is None:
        return ""
    lines = [
        "from gnomon.export import load_model",
        "",
        'model = load_model(".")  # architecture.json and weights.safetensors, in evaluation mode',
    ]
    return _code("## Use it with torch", "Run in this folder:", lines)


def _train_again(card: ModelCard) -> str:
    if not (card.has_config and card.metadata.architecture is not None and {"budget", "seed"} <= set(card.training)):
        return ""
    lines = [
        "from omegaconf import OmegaConf",
        "",
        "from gnomon.export import build_model",
        "from gnomon.search.instantiate import instantiate",
        "",
        'task = instantiate(OmegaConf.load("config.yaml").task, "task")',
        f'model = build_model(".", seed={card.training["seed"]!r})  # fresh weights',
        f"print(task.train(model, budget={card.training['budget']!r}, seed={card.training['seed']!r}))",
    ]
    rows = [(key, f"`{value}`") for key, value in card.training.items()]
    heading = f"## Train it again\n\n{_table(('training', 'value'), rows)}"
    return _code(heading, "`config.yaml` is the configuration of the study that found it. Run in this folder:", lines)


def _code(heading: str, text: str, lines: Sequence[str]) -> str:
    return "\n".join([heading, "", text, "", "```python", *lines, "```"])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _shape(shape: Sequence[int | str]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _numbers(shape: Sequence[int | str]) -> str:
    """A shape to try: 1 for every axis that may vary."""
    numbers = tuple(length if isinstance(length, int) else 1 for length in shape)
    return repr(numbers)
