"""Elastic modules: one set of weights that serves all networks of a space."""

from .model import ElasticModel

__all__ = ["ElasticModel"]
