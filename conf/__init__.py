"""Hydra configuration, packaged in the wheel."""
