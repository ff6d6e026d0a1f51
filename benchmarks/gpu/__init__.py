"""Checks of correctness, speed and memory on a GPU: `python -m benchmarks.gpu --out DIR`."""
