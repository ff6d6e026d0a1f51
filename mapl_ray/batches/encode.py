"""A relation group as token ids, the same for scoring, training and evaluation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import Any, Literal

from mapl_ray.batches.truncate import truncate_left
from mapl_ray.records import Message, Rejection, Relation, RelationGroup, Sequence, messages_to_rows

TruncatePrompt = Literal["refuse", "left"]


@dataclass(frozen=True, slots=True)
class EncodedGroup:
    """Token ids of a group's prompts and responses; a sequence is `prompt_ids + response_ids`."""

    pair_id: str
    prompt_ids: tuple[tuple[int, ...], ...]  # a tuple a prompt, chat template applied, ready for the answer
    response_ids: tuple[tuple[int, ...], ...]  # a tuple a response, ending with EOS
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
        """The prompts with the chat template, and apart from them the responses with EOS."""
        return cls(
            tuple(encode_prompt(prompt, tokenizer) for prompt in group.prompts),
            tuple(
                (*tokenizer.encode(response, add_special_tokens=False), tokenizer.eos_token_id)
                for response in group.responses
            ),
        )

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
    """Render the prompts with the chat template and tokenize prompts and responses apart.

    Apart, so that a response has the same ids under every prompt and the boundary never moves; a tokenizer that
    merges across it would give other ids for the joined text, which no stage here ever uses. `ids` are those of this
    group by this tokenizer, where they were made before.
    Returns a `Rejection` for a sequence longer than `max_sequence_tokens`; with `truncate_prompt="left"` only where
    `truncate_left` can't help. A truncated group has no `ref_logps`: the group's are of the whole prompts.
    """
    ids = TokenIds.of(group, tokenizer) if ids is None else ids
    prompt_ids, response_ids = ids.prompt_ids, ids.response_ids

    def longest(prompt_ids: Seq[Seq[int]]) -> int:
        return max(len(prompt_ids[s.prompt]) + len(response_ids[s.response]) for s in group.sequences)

    cut, whole = None, longest(prompt_ids)
    if whole > max_sequence_tokens and truncate_prompt == "left":
        cut = truncate_left(
            group, lambda prompts: longest([encode_prompt(p, tokenizer) for p in prompts]) <= max_sequence_tokens
        )
    if cut is not None:
        prompt_ids = tuple(encode_prompt(prompt, tokenizer) for prompt in cut.group.prompts)
    elif whole > max_sequence_tokens:
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


def encode_prompt(prompt: Seq[Message], tokenizer: Any) -> tuple[int, ...]:
    """Ids of the rendered prompt, ready for the answer."""
    rows = messages_to_rows(tuple(prompt))
    if tokenizer.chat_template is None:
        text = "".join(f"{row['role']}: {row['content']}\n\n" for row in rows) + "assistant: "
        text = (tokenizer.bos_token or "") + text
    else:
        text = tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True)
    # The template writes BOS itself where the model wants one.
    return tuple(tokenizer.encode(text, add_special_tokens=False))
