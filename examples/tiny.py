"""A two-layer model built on the spot, so that the examples need no network. Use a model of your own instead."""

from pathlib import Path

import mapl_ray


def tiny_model(folder: Path) -> str:
    """The directory of a causal language model and its tokenizer, about 0.2 million parameters."""
    pairs = [pair for pair in mapl_ray.read_pairs(mapl_ray.DataConfig()) if isinstance(pair, mapl_ray.PreferencePair)]
    texts = [text for pair in pairs for text in (pair.prompt[-1].content, pair.chosen, pair.rejected)]
    size = mapl_ray.TinyModelConfig(vocab_size=1000, hidden_size=64, num_layers=2, num_heads=2)
    return str(mapl_ray.build_tiny(folder / "tiny", texts, size, seed=0))
