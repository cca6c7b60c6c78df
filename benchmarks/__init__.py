"""Every figure that the project quotes: ``python -m benchmarks.NAME [--quick] [--json FILE]``."""
