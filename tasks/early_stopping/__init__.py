"""Stopping trainings that cannot win."""
