"""Chat templates of public model families, and small tokenizers that cut text as theirs do.

The templates say what the tokenizer_config.json of the instruct models says; vocabularies are trained on a few words,
with the families' special tokens, normalizers and pre-tokenizers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


QWEN2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# What matters here of Qwen3: an empty thought before the last answer; tool calls and results.
QWEN3 = """{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.last == messages|length - 1 and message.role == 'user' %}{%- set ns.last = index %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' or message.role == 'system' %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set content = message.content %}{%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}{{- '<|im_start|>assistant\n' + content }}{%- endif %}
        {%- if message.tool_calls %}{%- for call in message.tool_calls %}
            {%- if (loop.first and content) or not loop.first %}{{- '\n' }}{%- endif %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}\n</tool_call>' }}
        {%- endfor %}{%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
    "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}" + _ALTERNATE + "{% if message['role'] == 'assistant' %}"
    "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
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
PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
    "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
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
# As DeepSeek's distilled models, whose bars are full-width: generation starts with a thought, a stored answer does not.
DEEPSEEK = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<|Assistant|>' + content + '<|end_of_sentence|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
)


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
_DS = ["<|begin_of_sentence|>", "<|end_of_sentence|>", "<|User|>", "<|Assistant|>"]

FAMILIES = {
    "qwen2 (ChatML)": Family(QWEN2, lambda: byte_level(_IM), None, "<|im_end|>", "<|endoftext|>", "<|im_end|>\n"),
    "qwen3": Family(QWEN3, lambda: byte_level(_IM), None, "<|im_end|>", "<|endoftext|>", "<|im_end|>\n"),
    "llama 3": Family(LLAMA3, lambda: byte_level(_L3), _L3[0], "<|eot_id|>", None, "<|eot_id|>"),
    "gemma 2": Family(
        GEMMA,
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
        PHI3,
        lambda: sentence_piece(_PHI, prefix=True),
        "<s>",
        "<|endoftext|>",
        "<|endoftext|>",
        "<|end|>\n<|endoftext|>",
        extra=("<|assistant|>", "<|system|>", "<|end|>", "<|user|>"),
    ),
    "zephyr": Family(ZEPHYR, lambda: sentence_piece(_S, prefix=True), "<s>", "</s>", "</s>", "</s>\n"),
    "deepseek r1": Family(DEEPSEEK, lambda: byte_level(_DS), _DS[0], _DS[1], _DS[1], _DS[1]),
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
