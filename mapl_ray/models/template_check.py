"""Check, before training or scoring, that a model's chat template supports the conversations in the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from mapl_ray.batches import RENDER, encode_group
from mapl_ray.data.records import Level, PreferencePair, Rejection, Relation, RelationGroup, Sequence
from mapl_ray.errors import UserError
from mapl_ray.models.tokenizer import load_tokenizer

GROUPS_TRIED = 64  # templates refuse certain orders of turns, which usually appear in the first groups
_INSTRUCTION = "Write at least 7 words."  # represents the instructions that synthesis adds
_NO_LIMIT = 2**62


class TemplateCheck:
    """Finds pairs that the chat template refuses. Each kind of conversation that passed is tested only once.

    A kind is the order of turns, tools and tool calls, as templates refuse conversations by these. How a template
    handles each pair's texts is checked when the group is tokenized.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._taken: set[tuple[tuple[str, bool, bool], ...]] = set()

    def __call__(self, pair: PreferencePair) -> str | None:
        """The reason for refusal, with a remedy; None if x, x with an instruction and both responses are rendered."""
        kind = tuple((one.role, one.tool_calls is not None, one.tools is not None) for one in pair.prompt)
        if kind in self._taken:
            return None
        found = encode_group(_as_group(pair), self._tokenizer, _NO_LIMIT)
        if isinstance(found, Rejection):
            return found.reason
        self._taken.add(kind)
        return None


def check_rendering(
    groups: Iterable[RelationGroup], path: str | Path, revision: str | None = None, what: str = ""
) -> None:
    """Render the first groups. Raises `UserError`, with the template's error and a remedy, if all of them fail.

    `what`: the setting that names the model, such as `scoring.reward_model=`.
    """
    tokenizer, tried = load_tokenizer(path, revision), 0
    refused: Rejection | None = None
    for group in islice(groups, GROUPS_TRIED):
        found = encode_group(group, tokenizer, _NO_LIMIT)
        if not isinstance(found, Rejection) or found.stage != RENDER:
            return
        tried, refused = tried + 1, refused or found
    if refused is not None:
        pair = f"pair {refused.pair_id!r} of {refused.source}"
        raise UserError(f"{what}{path}: none of {tried} groups tried: {pair}: {refused.reason}.")


def _as_group(pair: PreferencePair) -> RelationGroup:
    last = max((index for index, message in enumerate(pair.prompt) if message.role == "user"), default=None)
    prompts = [pair.prompt]
    if last is not None:
        turn = pair.prompt[last]
        asked = replace(turn, content=f"{turn.content}\n\n{_INSTRUCTION}")
        prompts.append((*pair.prompt[:last], asked, *pair.prompt[last + 1 :]))
    return RelationGroup(
        pair_id=pair.pair_id,
        prompts=tuple(prompts),
        instructions=tuple(() for _ in prompts),
        responses=(pair.chosen, pair.rejected),
        sequences=(Sequence(0, 0, ()), Sequence(0, 1, ())),
        relations=(Relation(Level.PREF, (0,), (1,)),),
        source=pair.source,
    )
