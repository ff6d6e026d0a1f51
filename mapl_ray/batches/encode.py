"""A relation group as token ids, the same for scoring, training and evaluation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

from mapl_ray.batches.render import CURE, RenderError, render, render_answers
from mapl_ray.batches.truncate import truncate_left
from mapl_ray.data.records import Message, Rejection, Relation, RelationGroup, Sequence

# Computed once per tokenizer: a call builds it from the whole list of added tokens.
_SPECIAL: WeakKeyDictionary[Any, frozenset[int]] = WeakKeyDictionary()
TruncatePrompt = Literal["refuse", "left"]
RENDER = "render"  # stage of a rejection that is the chat template's
_END = 4  # tokens within which a template ends a turn
ENCODING = 2  # of the rules below; scores and token ids of other ones are not these


@dataclass(frozen=True, slots=True)
class EncodedGroup:
    """Token ids of a group's prompts and responses; a sequence is `prompt_ids + response_ids`."""

    pair_id: str
    prompt_ids: tuple[tuple[int, ...], ...]  # one tuple per prompt, chat template applied, ready for the answer
    response_ids: tuple[tuple[int, ...], ...]  # one tuple per response, to the end of the assistant's turn
    sequences: tuple[Sequence, ...]
    relations: tuple[Relation, ...]
    ref_logps: tuple[float, ...] | None = None
    margin: float | None = None  # of the data, for its pref relations
    truncated: bool = False  # the prompts lost something on their left

    def token_ids(self, sequence: int) -> tuple[int, ...]:
        """Ids of one whole sequence."""
        cell = self.sequences[sequence]
        return self.prompt_ids[cell.prompt] + self.response_ids[cell.response]

    def prompt_length(self, sequence: int) -> int:
        """Number of prompt tokens of one sequence: the response starts there."""
        return len(self.prompt_ids[self.sequences[sequence].prompt])


@dataclass(frozen=True, slots=True)
class TokenIds:
    """All that a tokenizer does for a group; nothing is cut."""

    prompt_ids: tuple[tuple[int, ...], ...]
    response_ids: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, group: RelationGroup, tokenizer: Any) -> TokenIds:
        """The prompts with the chat template, and apart from them the responses as it ends an assistant's turn.

        Raises `RenderError` where the template does not take the conversation, drops text of it, or makes the same of
        two different prompts.
        """
        texts = [render(prompt, tokenizer, generation=True) for prompt in group.prompts]
        cut, answers = render_answers(group.prompts[0], texts[0], group.responses, tokenizer)
        prompts = tuple(_ids(text[: len(text) - cut], tokenizer) for text in texts)
        for index, (prompt, ids) in enumerate(zip(group.prompts, prompts, strict=True)):
            if (first := prompts.index(ids)) != index and group.prompts[first] != prompt:
                raise RenderError(f"prompts {first} and {index} differ, and to the model they are the same")
        head = _head(group.prompts[0], texts[0][: len(texts[0]) - cut])
        return cls(prompts, tuple(_answer_ids(answer, head, tokenizer) for answer in answers))

    def to_row(self, pair_id: str) -> dict[str, Any]:
        """A row of `TOKEN_SCHEMA`."""
        return {
            "pair_id": pair_id,
            "prompt_ids": [list(ids) for ids in self.prompt_ids],
            "response_ids": [list(ids) for ids in self.response_ids],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> TokenIds:
        """The inverse of `to_row`."""
        return cls(tuple(map(tuple, row["prompt_ids"])), tuple(map(tuple, row["response_ids"])))


def encode_group(
    group: RelationGroup,
    tokenizer: Any,
    max_sequence_tokens: int,
    truncate_prompt: TruncatePrompt = "refuse",
    ids: TokenIds | None = None,
) -> EncodedGroup | Rejection:
    """Render the conversations with the chat template; a sequence has the ids of the whole one.

    A response has the same ids under every prompt, and the boundary never moves; where a tokenizer would merge the
    beginning of a response (a line break, say) with what the template writes before it, they stay apart. `ids` are
    those of this group by this tokenizer, where they were made before.
    Returns a `Rejection` for a group that the template does not take (`stage` is `render`), and for a sequence longer
    than `max_sequence_tokens`; with `truncate_prompt="left"` only where
    `truncate_left` can't help. A truncated group has no `ref_logps`: the group's are of the whole prompts.
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
    """The group as a filler: it takes part in the computation and adds nothing to loss or counts.

    ZeRO's collectives need every rank to run the same number of micro-batches, also where the data ran out.
    """
    return replace(group, relations=())


def of_levels(group: EncodedGroup, families: Collection[str]) -> EncodedGroup:
    """The group with the relations of some level families alone, and without the sequences that none of them needs.

    The plain baseline computes two sequences of a grid's six.
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
    """Ids of the rendered prompt, ready for generation, or without the last `opened` characters, for an answer.

    Raises `RenderError` where the template does not take it.
    """
    text = render(prompt, tokenizer, generation=True)
    return _ids(text[: len(text) - opened], tokenizer)


def _opening(group: RelationGroup, tokenizer: Any) -> int:
    text = render(group.prompts[0], tokenizer, generation=True)
    return render_answers(group.prompts[0], text, group.responses, tokenizer)[0]


def end_of_turn(tokenizer: Any) -> int:
    """The token that ends an assistant's turn: the first special one after an answer, EOS where there is none."""
    prompt = (Message("user", "?"),)
    text = render(prompt, tokenizer, generation=True)
    _, (answer,) = render_answers(prompt, text, ["!"], tokenizer)
    ends = _ids(answer[answer.index("!") + 1 :], tokenizer)
    return next((token for token in ends if token in _special_ids(tokenizer)), int(tokenizer.eos_token_id))


def read_at(ids: Seq[int], pad_token_id: int | None) -> Seq[int]:
    """The ids up to the token that a reward model is read at: the last one that is not padding to its config.

    A model whose padding is EOS, as is common, was trained by transformers' rule at the token before.
    """
    last = len(ids)
    while last > 1 and ids[last - 1] == pad_token_id:
        last -= 1
    return ids[:last]


def _ids(text: str, tokenizer: Any) -> tuple[int, ...]:
    # The template writes BOS itself where the model wants one.
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def _head(prompt: Seq[Message], rendered: str) -> str:
    """What the template writes between the prompt's last text and an answer."""
    said = prompt[-1].content.strip()
    at = rendered.rfind(said) if said else -1
    return rendered[at + len(said) :] if at >= 0 else rendered


def _answer_ids(answer: str, head: str, tokenizer: Any) -> tuple[int, ...]:
    """Ids of an answer in its place: alone, its first word would be cut as that of a text.

    An answer that nothing ends is ended with EOS, or the model would never learn to stop.
    """
    before = _ids(head, tokenizer)
    joined = _ids(head + answer, tokenizer)
    ids = joined[len(before) :] if joined[: len(before)] == before else _ids(answer, tokenizer)
    return ids if _special_ids(tokenizer).intersection(ids[-_END:]) else (*ids, tokenizer.eos_token_id)


def _special_ids(tokenizer: Any) -> frozenset[int]:
    if (found := _SPECIAL.get(tokenizer)) is None:
        found = _SPECIAL[tokenizer] = frozenset({*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder})
    return found
