"""The joined prompt."""

import pytest

from mapl_ray.data.records import Message
from mapl_ray.errors import UserError
from mapl_ray.instructions import REGISTRY, Instruction
from mapl_ray.synthesis import join_prompt

PROMPT = (
    Message("system", "Be kind."),
    Message("user", "Hi"),
    Message("assistant", "Hello."),
    Message("user", "  What is a river? "),
)


def _instructions(*texts: str) -> list[Instruction]:
    return [Instruction("word_count", REGISTRY["word_count"].family, {}, text) for text in texts]


def test_the_original_is_an_exact_prefix_and_other_turns_are_kept() -> None:
    layouts = set()
    for layout in range(100):
        joined = join_prompt(PROMPT, _instructions("Use commas.", "Be short."), layout)
        assert joined[:3] == PROMPT[:3]
        assert len(joined) == 4
        content = joined[3].content
        assert content.startswith(PROMPT[3].content)
        added = content.removeprefix(PROMPT[3].content)
        assert added.index("Use commas.") < added.index("Be short.")
        layouts.add(added)
    kinds = {"- Use" in added: added for added in layouts} | {"1. Use" in added: added for added in layouts}
    assert set(kinds) == {True, False}
    assert len(layouts) >= 12  # sentences, bullets and numbers, each with several lead-ins


def test_one_instruction_takes_the_singular() -> None:
    for layout in range(60):
        content = join_prompt(PROMPT, _instructions("Use commas."), layout)[3].content
        assert not any(word in content for word in ("instructions", "equirements", "conditions", "rules"))


def test_the_layout_does_not_depend_on_the_texts() -> None:
    for layout in range(30):
        one = join_prompt(PROMPT, _instructions("A.", "B."), layout)[3].content
        two = join_prompt(PROMPT, _instructions("C.", "D."), layout)[3].content
        assert one.replace("A.", "C.").replace("B.", "D.") == two


def test_no_instruction_leaves_the_prompt() -> None:
    assert join_prompt(PROMPT, [], 0) == PROMPT


def test_no_user_turn() -> None:
    with pytest.raises(UserError, match="user turn"):
        join_prompt((Message("system", "x"),), _instructions("A."), 0)
