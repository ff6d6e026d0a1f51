"""A two-layer model built from the sample pairs, so that the examples need no network. Use your own model instead."""

from pathlib import Path

import mapl_ray


def tiny_model(folder: Path) -> str:
    """Build a causal language model with about 0.2 million parameters and its tokenizer; return their directory."""
    pairs = [pair for pair in mapl_ray.read_pairs(mapl_ray.DataConfig()) if isinstance(pair, mapl_ray.PreferencePair)]
    texts = [text for pair in pairs for text in (pair.prompt[-1].content, pair.chosen, pair.rejected)]
    size = mapl_ray.TinyModelConfig(vocab_size=1000, hidden_size=64, num_layers=2, num_heads=2)
    return str(mapl_ray.build_tiny(folder / "tiny", texts, size, seed=0))
