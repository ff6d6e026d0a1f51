"""Tokenization of relation groups, shared by scoring, training and evaluation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

from mapl_ray.batches.render import CURE, RenderError, render, render_answers
from mapl_ray.batches.truncate import truncate_left
from mapl_ray.data.records import Message, Rejection, Relation, RelationGroup, Sequence

# Special token ids per tokenizer, cached because each computation goes through all added tokens.
_SPECIAL: WeakKeyDictionary[Any, frozenset[int]] = WeakKeyDictionary()
TruncatePrompt = Literal["refuse", "left"]
RENDER = "render"  # `stage` of rejections caused by the chat template
_END = 4  # a template's end-of-turn marker is within this many last tokens
ENCODING = 2  # version of the rules below; scores and token ids of another version can't be reused


@dataclass(frozen=True, slots=True)
class EncodedGroup:
    """Token ids of a group's prompts and responses. A sequence is `prompt_ids + response_ids`."""

    pair_id: str
    prompt_ids: tuple[tuple[int, ...], ...]  # one tuple per prompt, with chat template and generation prompt
    response_ids: tuple[tuple[int, ...], ...]  # one tuple per response, up to the end of the assistant turn
    sequences: tuple[Sequence, ...]
    relations: tuple[Relation, ...]
    ref_logps: tuple[float, ...] | None = None
    margin: float | None = None  # margin from the data, for pref relations
    truncated: bool = False  # whether the prompts were truncated on the left

    def token_ids(self, sequence: int) -> tuple[int, ...]:
        """Token ids of one sequence: prompt and response."""
        cell = self.sequences[sequence]
        return self.prompt_ids[cell.prompt] + self.response_ids[cell.response]

    def prompt_length(self, sequence: int) -> int:
        """Number of prompt tokens of one sequence, which is the index of the first response token."""
        return len(self.prompt_ids[self.sequences[sequence].prompt])


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Token ids of all prompts and responses of a group, without truncation."""

    prompt_ids: tuple[tuple[int, ...], ...]
    response_ids: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, group: RelationGroup, tokenizer: Any) -> TokenIds:
        """Render and tokenize the prompts, and separately the responses up to the end of the assistant turn.

        Raises `RenderError` if the template rejects the conversation, drops text, or renders two different prompts
        identically.
        """
        texts = [render(prompt, tokenizer, generation=True) for prompt in group.prompts]
        cut, answers = render_answers(group.prompts[0], texts[0], group.responses, tokenizer)
        prompts = tuple(_ids(text[: len(text) - cut], tokenizer) for text in texts)
        for index, (prompt, ids) in enumerate(zip(group.prompts, prompts, strict=True)):
            if (first := prompts.index(ids)) != index and group.prompts[first] != prompt:
                raise RenderError(f"prompts {first} and {index} differ, but have the same token ids")
        head = _head(group.prompts[0], texts[0][: len(texts[0]) - cut])
        return cls(prompts, tuple(_answer_ids(answer, head, tokenizer) for answer in answers))

    def to_row(self, pair_id: str) -> dict[str, Any]:
        """Convert to a row of `TOKEN_SCHEMA`."""
        return {
            "pair_id": pair_id,
            "prompt_ids": [list(ids) for ids in self.prompt_ids],
            "response_ids": [list(ids) for ids in self.response_ids],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> TokenIds:
        """Inverse of `to_row`."""
        return cls(tuple(map(tuple, row["prompt_ids"])), tuple(map(tuple, row["response_ids"])))


def encode_group(
    group: RelationGroup,
    tokenizer: Any,
    max_sequence_tokens: int,
    truncate_prompt: TruncatePrompt = "refuse",
    ids: TokenIds | None = None,
) -> EncodedGroup | Rejection:
    """Render the conversations with the chat template and tokenize them.

    A response has the same token ids under every prompt. Tokens never span the boundary between prompt and response,
    even if the tokenizer would merge the beginning of a response (such as a line break) with the template's text
    before it. `ids`: token ids of this group and tokenizer, if they were computed before.

    Returns a `Rejection` if the template rejects the conversation (`stage` is `render`), or if a sequence is longer
    than `max_sequence_tokens` (with `truncate_prompt="left"`: and `truncate_left` can't shorten it enough). A
    truncated group has no `ref_logps`, as those were computed with the full prompts.
    """
    try:
        return _encode_group(group, tokenizer, max_sequence_tokens, truncate_prompt, ids)
    except RenderError as error:
        return Rejection(group.source, -1, group.pair_id, RENDER, f"{error}. {CURE}")


def _encode_group(
    group: RelationGroup,
    tokenizer: Any,
    max_sequence_tokens: int,
    truncate_prompt: TruncatePrompt,
    ids: TokenIds | None,
) -> EncodedGroup | Rejection:
    ids = ids if ids is not None and ids.prompt_ids else TokenIds.of(group, tokenizer)
    prompt_ids, response_ids = ids.prompt_ids, ids.response_ids

    def longest(prompt_ids: Seq[Seq[int]]) -> int:
        return max(len(prompt_ids[s.prompt]) + len(response_ids[s.response]) for s in group.sequences)

    cut, whole = None, longest(prompt_ids)
    if whole > max_sequence_tokens and truncate_prompt == "left":
        opened = _opening(group, tokenizer)

        def encoded(prompts: Seq[Seq[Message]]) -> tuple[tuple[int, ...], ...]:
            return tuple(encode_prompt(prompt, tokenizer, opened) for prompt in prompts)

        cut = truncate_left(group, lambda prompts: longest(encoded(prompts)) <= max_sequence_tokens)
        prompt_ids = prompt_ids if cut is None else encoded(cut.group.prompts)
    if cut is None and whole > max_sequence_tokens:
        reason = (
            f"longest sequence has {whole} tokens, above max_sequence_tokens={max_sequence_tokens}: "
            "raise it, or lower data.max_prompt_chars and data.max_response_chars"
        )
        return Rejection(group.source, -1, group.pair_id, "tokenize", reason)
    return EncodedGroup(
        group.pair_id,
        prompt_ids,
        response_ids,
        group.sequences,
        group.relations,
        ref_logps=group.ref_logps if cut is None else None,
        margin=group.margin,
        truncated=cut is not None,
    )


def without_relations(group: EncodedGroup) -> EncodedGroup:
    """Turn a group into a filler, which is computed but adds nothing to loss or counts.

    ZeRO's collectives need the same number of micro-batches on every rank, even on ranks that ran out of data.
    """
    return replace(group, relations=())


def of_levels(group: EncodedGroup, families: Collection[str]) -> EncodedGroup:
    """Keep only the relations of the given level families, and the sequences that these need.

    For example, the pref-only baseline computes two of the six sequences of a full group.
    """
    relations = [relation for relation in group.relations if relation.level.family in families]
    if len(relations) == len(group.relations):
        return group
    if not relations:
        return without_relations(group)
    kept = sorted({index for r in relations for index in (*r.preferred, *r.dispreferred)})
    new = {old: index for index, old in enumerate(kept)}
    return replace(
        group,
        sequences=tuple(group.sequences[old] for old in kept),
        relations=tuple(
            Relation(r.level, tuple(new[i] for i in r.preferred), tuple(new[i] for i in r.dispreferred))
            for r in relations
        ),
        ref_logps=None if group.ref_logps is None else tuple(group.ref_logps[old] for old in kept),
    )


def encode_prompt(prompt: Seq[Message], tokenizer: Any, opened: int = 0) -> tuple[int, ...]:
    """Token ids of the rendered prompt with generation prompt, without its last `opened` characters.

    Raises `RenderError` if the template rejects the prompt.
    """
    text = render(prompt, tokenizer, generation=True)
    return _ids(text[: len(text) - opened], tokenizer)


def _opening(group: RelationGroup, tokenizer: Any) -> int:
    text = render(group.prompts[0], tokenizer, generation=True)
    return render_answers(group.prompts[0], text, group.responses, tokenizer)[0]


def end_of_turn(tokenizer: Any) -> int:
    """Id of the token that ends an assistant turn: the first special token after a response, EOS if there is none."""
    prompt = (Message("user", "?"),)
    text = render(prompt, tokenizer, generation=True)
    _, (answer,) = render_answers(prompt, text, ["!"], tokenizer)
    ends = _ids(answer[answer.index("!") + 1 :], tokenizer)
    return next((token for token in ends if token in _special_ids(tokenizer)), int(tokenizer.eos_token_id))


def read_at(ids: Seq[int], pad_token_id: int | None) -> Seq[int]:
    """Token ids up to the one at which a reward model's score is read: the last that is not its config's pad token.

    This is transformers' rule. With EOS as pad token, which is common, it means the token before EOS.
    """
    last = len(ids)
    while last > 1 and ids[last - 1] == pad_token_id:
        last -= 1
    return ids[:last]


def _ids(text: str, tokenizer: Any) -> tuple[int, ...]:
    # The template adds BOS if the model needs it.
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def _head(prompt: Seq[Message], rendered: str) -> str:
    """Text that the template adds between the prompt's last message and a response."""
    said = prompt[-1].content.strip()
    at = rendered.rfind(said) if said else -1
    return rendered[at + len(said) :] if at >= 0 else rendered


def _answer_ids(answer: str, head: str, tokenizer: Any) -> tuple[int, ...]:
    """Token ids of a response in context. Tokenized alone, its first word could get the ids of a text's first word.

    Appends EOS if the template adds no end-of-turn token, as the model would not learn to stop.
    """
    before = _ids(head, tokenizer)
    joined = _ids(head + answer, tokenizer)
    ids = joined[len(before) :] if joined[: len(before)] == before else _ids(answer, tokenizer)
    return ids if _special_ids(tokenizer).intersection(ids[-_END:]) else (*ids, tokenizer.eos_token_id)


def _special_ids(tokenizer: Any) -> frozenset[int]:
    if (found := _SPECIAL.get(tokenizer)) is None:
        found = _SPECIAL[tokenizer] = frozenset({*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder})
    return found
