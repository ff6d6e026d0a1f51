"""Relation groups in the grid layout, made by hand."""

from collections.abc import Callable

import pytest

from mapl_ray.data.records import InstructionRecord, Level, Message, Relation, RelationGroup, Sequence

GroupMaker = Callable[..., RelationGroup]


def _make_group(
    pair_id: str = "a",
    prompt: str = "Tell me.",
    chosen: str = "one two three",
    rejected: str = "one",
    names: tuple[str, ...] = ("min_words",),
) -> RelationGroup:
    more = tuple(InstructionRecord(name, f"do {name}") for name in names)
    less = tuple(InstructionRecord(name, f"avoid {name}") for name in names)
    prompts = tuple((Message("user", text),) for text in (prompt, f"{prompt} do", f"{prompt} avoid"))
    yes, no = (True,) * len(names), (False,) * len(names)
    return RelationGroup(
        pair_id=pair_id,
        prompts=prompts,
        instructions=((), more, less),
        responses=(chosen, rejected),
        sequences=(
            Sequence(0, 0, ()),
            Sequence(0, 1, ()),
            Sequence(1, 0, yes),
            Sequence(1, 1, no),
            Sequence(2, 0, no),
            Sequence(2, 1, yes),
        ),
        relations=(
            Relation(Level.PREF, (0,), (1,)),
            Relation(Level.INTRA, (2,), (4,)),
            Relation(Level.INTRA, (5,), (3,)),
            Relation(Level.INTER_WIDENING, (2, 1), (3, 0)),
            Relation(Level.INTER_NARROWING, (0, 5), (1, 4)),
        ),
        source="test",
    )


@pytest.fixture
def make_group() -> GroupMaker:
    return _make_group
