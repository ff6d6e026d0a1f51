"""Chat templates of public model families, and small tokenizers that cut text as theirs do.

The templates are those of the instruct models; vocabularies are trained on a few words,
with the families' special tokens, normalizers and pre-tokenizers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trl
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "Why is the sky blue? Sunlight scatters in the air, and blue light scatters most.",
    "Use at least 10 words. Use at most 9 words.\n\n- one\n- two\n",
    "<|user|>\n<|assistant|>\nsystem user assistant model [INST] [/INST] tool",
    "The river runs past the old stone mill. The mill grinds nothing today.",
]
# How Qwen's and Llama 3's tokenizers cut a text before they merge bytes.
_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def byte_level(special: list[str]) -> Tokenizer:
    """Byte-level BPE: Qwen, Llama 3."""
    tokenizer = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(_GPT4), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(tokenizer, special, alphabet)


def sentence_piece(special: list[str], prefix: bool) -> Tokenizer:
    """SentencePiece's BPE over whole texts; with `prefix` a space before every text, as Llama 2 and Mistral have."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    space = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space]) if prefix else space
    # A line break is a byte or a symbol of its own there: no merge has one within.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", behavior="isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return _trained(tokenizer, ["<unk>", *special], [chr(code) for code in range(33, 127)] + ["▁", "\n"])


def _trained(tokenizer: Tokenizer, special: list[str], alphabet: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def published(name: str) -> str:
    """A template as its models ship it, from the copies that TRL compares tokenizers with."""
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


# Those that TRL has no copy of: Mistral-7B-Instruct-v0.2 and Mixtral-8x7B-Instruct, and below Zephyr-7B.
_ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
    "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}" + _ALTERNATE + "{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
# From version 0.3 on the marks are tokens, and a space stands before an answer.
MISTRAL3 = MISTRAL.replace("' [/INST]'", "'[/INST]'").replace(
    "message['content'] + eos_token", "' ' + message['content'] | trim + eos_token"
)
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""


@dataclass(frozen=True)
class Family:
    """A template with its tokenizer, and what its own conversations look like."""

    template: str
    make: Callable[[], Tokenizer]
    bos: str | None
    eos: str
    pad: str | None
    ends: str  # what stands after an answer
    system: bool = True
    extra: tuple[str, ...] = ()  # tokens that are special and have no role of transformers' own


_IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_L3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|finetune_right_pad_id|>"]
_GEMMA = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
_S, _PHI = ["<s>", "</s>"], ["<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
# Their bars are full-width, and the low line is SentencePiece's.
_DS = [
    f"<\uff5c{name}\uff5c>"
    for name in ("begin\u2581of\u2581sentence", "end\u2581of\u2581sentence", "User", "Assistant")
]

FAMILIES = {
    "qwen2.5 (ChatML)": Family(
        published("qwen2_5"), lambda: byte_level(_IM), None, "<|im_end|>", "<|endoftext|>", "<|im_end|>\n"
    ),
    "qwen3": Family(published("qwen3"), lambda: byte_level(_IM), None, "<|im_end|>", "<|endoftext|>", "<|im_end|>\n"),
    "llama 3": Family(published("llama3"), lambda: byte_level(_L3), _L3[0], "<|eot_id|>", None, "<|eot_id|>"),
    "gemma 2": Family(
        published("gemma"),
        lambda: sentence_piece(_GEMMA, prefix=False),
        "<bos>",
        "<eos>",
        "<pad>",
        "<end_of_turn>\n",
        system=False,
        extra=("<start_of_turn>", "<end_of_turn>"),
    ),
    "mistral 0.2": Family(MISTRAL, lambda: sentence_piece(_S, prefix=True), "<s>", "</s>", None, "</s>", system=False),
    "mistral 0.3": Family(
        MISTRAL3,
        lambda: sentence_piece([*_S, "[INST]", "[/INST]"], prefix=True),
        "<s>",
        "</s>",
        None,
        "</s>",
        system=False,
        extra=("[INST]", "[/INST]"),
    ),
    "phi 3": Family(
        published("phi3"),
        lambda: sentence_piece(_PHI, prefix=True),
        "<s>",
        "<|endoftext|>",
        "<|endoftext|>",
        "<|end|>\n<|endoftext|>",
        extra=("<|assistant|>", "<|system|>", "<|end|>", "<|user|>"),
    ),
    "zephyr": Family(ZEPHYR, lambda: sentence_piece(_S, prefix=True), "<s>", "</s>", "</s>", "</s>\n"),
    "deepseek r1": Family(published("deepseek_r1_distill"), lambda: byte_level(_DS), _DS[0], _DS[1], _DS[1], _DS[1]),
}


def tokenizer_of(family: Family) -> Any:
    """As `AutoTokenizer` gives it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=family.make(),
        bos_token=family.bos,
        eos_token=family.eos,
        pad_token=family.pad,
        unk_token="<unk>" if "<unk>" in family.make().get_vocab() else None,
        additional_special_tokens=list(family.extra),
        chat_template=family.template,
        clean_up_tokenization_spaces=False,
    )
