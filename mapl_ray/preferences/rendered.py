"""Parse texts that a chat template has already rendered back into turns.

Otherwise a template would render such a text a second time, and a prompt's instruction would end up between the wrong
marks, or in the assistant's turn. So text rendered in a known dialect is parsed, and text that only looks rendered is
refused with the mark that was found. Plain words such as `Human:` alone do not count as rendered; special tokens of
chat templates (`<|im_start|>`) always do. Every pattern here takes time linear in the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mapl_ray.data.records import Message
from mapl_ray.preferences.fields import RowError, text, visible

_ROLES = {
    **dict.fromkeys(("user", "User", "Human"), "user"),
    **dict.fromkeys(("assistant", "Assistant", "model"), "assistant"),
    **dict.fromkeys(("system", "System"), "system"),
}
_BEGIN = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>")
_MOST_BEGINS = 2  # a tokenizer may add a second one
_END = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|end_of_text|>", "<end_of_turn>", "<eos>", "<|end|>",
    "<|endoftext|>", "<|end_of_turn|>", "</s>",
)  # fmt: skip
# Marks that only chat templates write. Outside of a known dialect they are refused.
_TOKEN = re.compile(
    r"<\|[A-Za-z_]{1,40}\|>|<\uff5c[^\uff5c\n]{1,40}\uff5c>|<(?:start|end)_of_turn>|\[/?(?:INST|SYSTEM_PROMPT)\]"
    r"|<</?SYS>>|<extra_id_[01]>"
)
_BRACKET_LITERALS = ("INST]", "SYSTEM_PROMPT]")
_TOKEN_LITERALS = ("<|", "<\uff5c", "_of_turn>", "SYS>>", "<extra_id_")
# Last line of a prompt that ends where the assistant's turn begins.
_WAITING = re.compile(
    r"###\s{0,3}(?:Response|Assistant|Answer|Output)\s?:|(?:Assistant|ASSISTANT|AI|Bot)\s?:|.{0,4000}[ .>]ASSISTANT:"
)
_EXPECTED = "plain text, or a whole conversation rendered in a dialect that docs/data.md lists"
_ALPACA_BEGINS = "Below is an instruction that describes a task"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a family of chat templates opens its turns. Group 1 of `opener` is the role."""

    name: str
    opener: re.Pattern[str]
    literals: tuple[str, ...]  # a text with an opener contains one of these: checked first because it is faster
    is_words: bool = False  # the mark is plain words, which ordinary text may contain
    begins_with_user: bool = False  # the first turn is the user's and has no mark


DIALECTS = (
    Dialect("ChatML", re.compile(r"<\|im_start\|>(\w{1,30})(?:\n|<\|im_sep\|>)"), ("<|im_start|>",)),
    Dialect("Llama 3", re.compile(r"<\|start_header_id\|>(\w{1,30})<\|end_header_id\|>"), ("<|start_header_id|>",)),
    Dialect("Llama 4", re.compile(r"<\|header_start\|>(\w{1,30})<\|header_end\|>"), ("<|header_start|>",)),
    Dialect("Gemma", re.compile(r"<start_of_turn>(\w{1,30})\n"), ("<start_of_turn>",)),
    Dialect("Zephyr, Phi-3", re.compile(r"<\|(system|user|assistant)\|>"), ("<|system|>", "<|user|>", "<|assistant|>")),
    Dialect(
        "HelpSteer", re.compile(r"<extra_id_[01]>(System|User|Assistant)\n"), ("<extra_id_",), begins_with_user=True
    ),
    Dialect("HH", re.compile(r"(?:\A\n{0,2}|\n\n)(Human|Assistant):"), ("Human:", "Assistant:"), is_words=True),
    Dialect("### Human", re.compile(r"(?:\A|\n)### (Human|User|Assistant|System):"), ("### ",), is_words=True),
)
_HH = next(dialect for dialect in DIALECTS if dialect.name == "HH")
_LLAMA_2 = Dialect("Llama 2, Mistral", re.compile(r"\[(/?INST)\]"), ("[INST]",))
_ALPACA = Dialect("Alpaca", re.compile(r"(?:\A|\n)### (Instruction|Input|Response):"), ("### Response:",), True)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Turns and dialect of a rendered text, without an empty assistant turn at its end (a generation prompt)."""

    turns: tuple[Message, ...]
    dialect: Dialect


def read_rendered(field_: str, value: str, prompt: bool) -> Rendered | None:
    """Parse a rendered text; None for a text that is not rendered.

    With `prompt`, the text may end where the assistant's turn begins. Raises `RowError`, naming the mark, for a text
    that looks rendered but can't be parsed.
    """
    if not _may_have_marker(value):
        if prompt:
            _refuse_waiting(field_, value)
        return None
    given = _without_begin(value)
    for dialect in DIALECTS:
        if not _has_any(dialect.literals, given) or (first := dialect.opener.search(given)) is None:
            continue
        at_head = dialect.begins_with_user or not given[: first.start()].strip()
        if at_head and (not dialect.is_words or _is_transcript(given, first, dialect)):
            return Rendered(_turns(field_, given, dialect, prompt), dialect)
    if given.lstrip().startswith("[INST]"):
        return Rendered(_llama_2_turns(field_, given, prompt), _LLAMA_2)
    sections = _alpaca_sections(given, prompt)
    if sections is not None:
        return Rendered(_alpaca_turns(field_, *sections, prompt), _ALPACA)
    refuse_marks(field_, without_end(value), prompt)
    return None


def read_transcript(field_: str, value: str) -> tuple[Message, ...]:
    """Parse the turns of an HH transcript. Raises `RowError` for any other text."""
    given = "\n\n" + value.lstrip("\n")
    first = _HH.opener.search(given)
    if first is None or given[: first.start()].strip():
        raise RowError(field_, "not a transcript", "'\\n\\nHuman: ...\\n\\nAssistant: ...'", value)
    return _turns(field_, given, _HH, prompt=False)


def without_end(value: str) -> str:
    """Remove the marks that end a turn (`<|im_end|>`, `</s>`) from the end of a text."""
    if not value.rstrip().endswith(">"):
        return value
    # `<s>...</s>` is also HTML for struck-out text.
    marks = [mark for mark in _END if mark != "</s>" or "<s>" not in value]
    kept = end = len(value)
    while True:
        while end and value[end - 1].isspace():
            end -= 1
        mark = next((mark for mark in marks if value.endswith(mark, 0, end)), None)
        if mark is None:
            return value[:kept]
        kept = end = end - len(mark)


def refuse_marks(field_: str, value: str, prompt: bool, dialect: Dialect | None = None) -> None:
    """Raise `RowError` for a text with a mark of chat templates or of `dialect`."""
    found = _TOKEN.search(value) if _may_have_token(value) else None
    if found is None and dialect is not None:
        found = dialect.opener.search(value)
    if found is not None:
        raise RowError(field_, f"looks rendered: has the marker {found[0].strip()!r}", _EXPECTED, value)
    if prompt:
        _refuse_waiting(field_, value)


def _refuse_waiting(field_: str, value: str) -> None:
    """Raise `RowError` for a prompt that ends where an assistant's turn begins."""
    last = value.rstrip()[-4100:].rpartition("\n")[2].strip()
    if _WAITING.fullmatch(last):
        mark = last.rpartition(" ")[2] if last.endswith("ASSISTANT:") else last
        raise RowError(field_, f"looks rendered: ends with the marker {mark!r}", _EXPECTED, value)
    if value.lstrip().startswith("Instruct:") and last == "Output:":
        raise RowError(field_, "looks rendered: ends with the marker 'Output:'", _EXPECTED, value)


def _is_transcript(given: str, first: re.Match[str], dialect: Dialect) -> bool:
    """For a dialect of plain words: whether the text is a transcript, not just a text that begins with such a word."""
    return given.startswith("\n\n") or dialect.opener.search(given, first.end()) is not None


def _turns(field_: str, given: str, dialect: Dialect, prompt: bool) -> tuple[Message, ...]:
    openers = list(dialect.opener.finditer(given))
    before = given[: openers[0].start()]
    pieces = [("user", before)] if before.strip() else []
    for index, opener in enumerate(openers):
        end = openers[index + 1].start() if index + 1 < len(openers) else len(given)
        role = _ROLES.get(opener[1])
        if role is None:
            raise RowError(field_, f"rendered ({dialect.name}): unknown role {opener[1]!r}", "system|user|assistant")
        pieces.append((role, given[opener.end() : end]))
    return _messages(field_, pieces, dialect, prompt)


def _llama_2_turns(field_: str, given: str, prompt: bool) -> tuple[Message, ...]:
    pieces: list[tuple[str, str]] = []
    parts = _LLAMA_2.opener.split(given)
    for index, (mark, piece) in enumerate(zip(parts[1::2], parts[2::2], strict=True)):
        if mark != ("INST" if index % 2 == 0 else "/INST"):
            raise RowError(
                field_,
                f"rendered (Llama 2, Mistral): the marker '[{mark}]' twice in a row",
                "[INST] and [/INST] alternately",
            )
        if mark == "/INST":
            pieces.append(("assistant", piece.strip().removesuffix("<s>")))
            continue
        before, opened, rest = piece.partition("<<SYS>>")
        if opened and not before.strip() and "<</SYS>>" in rest:
            system, _, piece = rest.partition("<</SYS>>")
            pieces.append(("system", system))
        pieces.append(("user", piece))
    return _messages(field_, pieces, _LLAMA_2, prompt)


def _alpaca_sections(given: str, prompt: bool) -> tuple[str, list[tuple[str, str]]] | None:
    """The text before the first `###` section, and the sections by name; None for a text that is not Alpaca."""
    if not _has_any(_ALPACA.literals, given):
        return None
    parts = _ALPACA.opener.split(given)
    sections = list(zip(parts[1::2], parts[2::2], strict=True))
    names = [name for name, _ in sections]
    if "Response" not in names:
        return None
    before = parts[0].strip()
    if names[0] == "Response":
        return None if before or prompt else ("", sections)
    waits = prompt and names[-1] == "Response" and not visible(sections[-1][1])
    if before and not before.startswith(_ALPACA_BEGINS) and not waits:
        return None  # ordinary text that quotes the format, or a response that runs on
    return before, sections


def _alpaca_turns(field_: str, before: str, sections: list[tuple[str, str]], prompt: bool) -> tuple[Message, ...]:
    pieces = [("system", before)] if before and not before.startswith(_ALPACA_BEGINS) else []
    for name, piece in sections:
        if name == "Input" and pieces and pieces[-1][0] == "user":
            pieces[-1] = ("user", f"{pieces[-1][1].strip()}\n\n{piece.strip()}")
        else:
            pieces.append(("assistant" if name == "Response" else "user", piece))
    return _messages(field_, pieces, _ALPACA, prompt)


def _messages(field_: str, pieces: list[tuple[str, str]], dialect: Dialect, prompt: bool) -> tuple[Message, ...]:
    if prompt and pieces[-1][0] == "assistant" and not visible(without_end(pieces[-1][1])):
        pieces = pieces[:-1]
    messages = []
    for index, (role, piece) in enumerate(pieces):
        content = without_end(piece).strip()
        where = f"{field_}[{index}]"
        if role == "system" and not visible(content):
            continue
        refuse_marks(where, content, prompt=False)
        messages.append(Message(role, text(where, content)))
    if not messages:
        raise RowError(field_, f"rendered ({dialect.name}) without any turn", "a conversation")
    return tuple(messages)


def _may_have_marker(value: str) -> bool:
    return "Human:" in value or "Assistant:" in value or ("#" in value and "### " in value) or _may_have_token(value)


def _may_have_token(value: str) -> bool:
    """Whether a text may hold a special token. Single characters first: fastest, and most texts have neither."""
    return ("<" in value and _has_any(_TOKEN_LITERALS, value)) or ("]" in value and _has_any(_BRACKET_LITERALS, value))


def _has_any(literals: tuple[str, ...], value: str) -> bool:
    return any(map(value.__contains__, literals))


def _without_begin(value: str) -> str:
    """Remove begin-of-sequence tokens. Keeps white space, because HH's marks begin with it."""
    given = value
    for _ in range(_MOST_BEGINS):
        mark = next((mark for mark in _BEGIN if given.lstrip().startswith(mark)), None)
        if mark is None:
            break
        given = given.lstrip()[len(mark) :]
    return given
