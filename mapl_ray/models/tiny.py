"""A small random Llama with a tokenizer, so that the demo and the tests need no hub."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mapl_ray.config import TinyModelConfig
from mapl_ray.data.shards import sync_folder, sync_tree
from mapl_ray.models.quiet import quiet_transformers
from mapl_ray.unfinished import scratch_folder

ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['tool_calls'] %}{{ message['tool_calls'] | tojson }}{% endif %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tiny(directory: Path, texts: Iterable[str], config: TinyModelConfig, seed: int) -> Path:
    """Train a byte-level BPE tokenizer on `texts`, initialize the weights from `seed`, save both; returns `directory`.

    The directory is created atomically. An existing one is not changed.
    """
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(directory.name, directory.parent) as aside:
        tokenizer = _tokenizer(texts, config)
        with quiet_transformers():
            _model(tokenizer, config, seed).save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        whole = aside / "whole"
        whole.mkdir(mode=0o755)
        for file in [path for path in aside.iterdir() if path != whole]:
            file.rename(whole / file.name)
        sync_tree(whole)
        whole.rename(directory)
        sync_folder(directory.parent)
    return directory


def _tokenizer(texts: Iterable[str], config: TinyModelConfig) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=["<pad>", "<s>", "</s>", *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return chat_tokenizer(tokenizer, config.max_position_embeddings)


def chat_tokenizer(tokenizer: Tokenizer, max_length: int, **special: str) -> PreTrainedTokenizerFast:
    """Wrap a tokenizer that has the tokens `<pad>`, `<s>`, `</s>` and ROLES for transformers, with a chat template.
    `special`: further special tokens, such as `unk_token="<unk>"`."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=list(ROLES),
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
        **special,
    )


def draw_llama(tokenizer: PreTrainedTokenizerFast, seed: int, **config: int | float | bool) -> LlamaForCausalLM:
    """Create a Llama for the tokenizer, with weights initialized from `seed`. `config`: fields of `LlamaConfig`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                **config,
            )
        )


def _model(tokenizer: PreTrainedTokenizerFast, config: TinyModelConfig, seed: int) -> LlamaForCausalLM:
    return draw_llama(
        tokenizer,
        seed,
        hidden_size=config.hidden_size,
        intermediate_size=4 * config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        max_position_embeddings=config.max_position_embeddings,
    )
