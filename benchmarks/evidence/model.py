"""A small Llama and its word-level tokenizer, built from the texts of the training pairs.

A word has the same ids in every position (after a space, before a punctuation mark, in quotation marks). Every
punctuation mark, digit and line break is a token. Texts are lowercased, because no instruction of the experiment
depends on case.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.evidence.scale import Scale
from mapl_ray.models.tiny import ROLES, chat_tokenizer, draw_llama

_SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", *ROLES)


def word_tokenizer(texts: Iterable[str], scale: Scale) -> PreTrainedTokenizerFast:
    """A BPE tokenizer within lowercase words, with at most `scale.vocab_size` tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Split(Regex(r"[^\w\s]"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")  # words with spaces between them
    trainer = trainers.BpeTrainer(
        vocab_size=scale.vocab_size, special_tokens=[*_SPECIAL], limit_alphabet=200, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return chat_tokenizer(tokenizer, scale.max_sequence_tokens, unk_token="<unk>")


def fresh_model(tokenizer: Any, scale: Scale, seed: int) -> LlamaForCausalLM:
    """A model with random weights from `seed`, and embeddings tied to the output layer."""
    return draw_llama(
        tokenizer,
        seed,
        hidden_size=scale.hidden_size,
        intermediate_size=scale.intermediate_size,
        num_hidden_layers=scale.num_layers,
        num_attention_heads=scale.num_heads,
        num_key_value_heads=scale.num_heads,
        max_position_embeddings=scale.max_sequence_tokens,
        initializer_range=scale.initializer_range,
        tie_word_embeddings=True,
    )


def save(model: LlamaForCausalLM, tokenizer: Any, directory: Path) -> None:
    """Save a model directory for the project's loaders."""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
