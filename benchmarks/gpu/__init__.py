"""The gate of a GPU: is it right there, how fast, how large. `python -m benchmarks.gpu --out DIR`."""
