"""Export a network to ONNX and check the file against torch.

gnomon export from=runs/STUDY/models/ID to=shipped         a trained model, anew
gnomon export architecture=mobilenet_v2 to=exported        an architecture, fresh weights
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import nn

    from ..cli import Options
    from ..export import ModelMetadata
    from ..search_spaces import SearchSpace

CONFIG = "export"


def run(config: DictConfig, options: Options) -> int:
    """Exports, checks and prints the files."""
    from ..export import ModelMetadata, check_exported, export_deployable

    space, choices, module = _source(config)
    deployable, modules = space.deployable(choices), space.graph_modules(module)
    metadata = _metadata(config) or ModelMetadata(deployable.architecture, interface=space.interface(choices))
    exported = export_deployable(
        deployable, Path(config.to), modules=modules, metadata=metadata.props(), opset=config.opset
    )
    error = check_exported(exported, modules, feeds=metadata.interface.get("feeds"))
    files = [str(graph.onnx_path) for graph in exported.graphs.values()]
    if options.json:
        print(json.dumps({"files": files, "max_abs_error": error}))
    else:
        print(f"{', '.join(files)}: differs from torch by at most {error:.1e}")
    return 0


def _source(config: DictConfig) -> tuple[SearchSpace, Mapping[str, Any], nn.Module]:
    """Space, choices and module: trained from a folder, or fresh under the seed."""
    import torch

    from ..export import load_architecture, load_model
    from ..search_spaces import space_from_spec
    from ._architectures import space_and_config

    if config["from"] is not None:
        folder = Path(config["from"])
        architecture = load_architecture(folder)
        return space_from_spec(architecture.space), architecture.config, load_model(folder)
    space, choices = space_and_config(config)
    torch.manual_seed(config.seed)
    return space, choices, space.build(choices)


def _metadata(config: DictConfig) -> ModelMetadata | None:
    """What the trained model's card says of task, labels and preprocessing."""
    from ..export import read_card

    return None if config["from"] is None else read_card(Path(config["from"])).metadata
