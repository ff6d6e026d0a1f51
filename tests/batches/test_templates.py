"""Chat templates of public families and odd ones: whole conversations to the token, and nothing dropped in silence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.batches import EncodedGroup, RenderError, encode_group, end_of_turn, read_at, render
from mapl_ray.batches.encode import TokenIds
from mapl_ray.data.records import Message, Rejection, RelationGroup, canonical_json, message_fields
from tests.batches.families import FAMILIES, tokenizer_of

TEMPLATES = Path(__file__).resolve().parents[3] / "shared" / "inputs" / "templates"
USER = Message("user", "Why is the sky blue?")
TURNS = (USER, Message("assistant", "Sunlight scatters."), Message("user", "And the river?"))
ANSWERS = (
    ("Sunlight scatters in the air.", "The river runs past\n\nthe mill.  "),
    ("- one\n- two\n", "1. Use 10 words; a <b> & 7!"),
)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """A family's name and its tokenizer."""
    return request.param, tokenizer_of(FAMILIES[request.param])


def group_of(base: RelationGroup, prompt: tuple[Message, ...], answers: tuple[str, str]) -> RelationGroup:
    """x, x+ and x-, of a prompt that ends with a user turn."""
    sides = ["", " Use at least 10 words.", " Use at most 9 words."]
    prompts = tuple((*prompt[:-1], replace(prompt[-1], content=prompt[-1].content + side)) for side in sides)
    return replace(base, prompts=prompts, responses=answers)


def test_ids_are_those_of_the_whole_conversation(family: tuple[str, Any], grid_groups: Any) -> None:
    name, tokenizer = family
    prompts = [(USER,), TURNS]
    if FAMILIES[name].system:
        prompts += [(Message("system", "Use words."), *one) for one in prompts]
    for prompt in prompts:
        for answers in ANSWERS:
            group = group_of(grid_groups(1)[0], prompt, answers)
            encoded = encode_group(group, tokenizer, 4096)
            assert isinstance(encoded, EncodedGroup), encoded
            for index, cell in enumerate(group.sequences):
                turns = (*group.prompts[cell.prompt], Message("assistant", group.responses[cell.response]))
                whole = [message_fields(turn) for turn in turns]
                assert list(encoded.token_ids(index)) == tokenizer.apply_chat_template(
                    whole, tokenize=True, return_dict=False
                )


def test_responses_end_as_the_template_ends_a_turn(family: tuple[str, Any], grid_groups: Any) -> None:
    name, tokenizer = family
    ids = TokenIds.of(group_of(grid_groups(1)[0], (USER,), ANSWERS[0]), tokenizer)
    ends = FAMILIES[name].ends
    for response in ids.response_ids:
        # SentencePiece's decoder writes a space at the beginning of whatever follows a special token.
        assert tokenizer.decode(list(response)).replace("> \n", ">\n").endswith(ends)
    first = next(
        token for token in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", ends.strip()) if token in ends
    )
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids(first)


def test_a_generation_prompt_is_what_the_template_says(family: tuple[str, Any]) -> None:
    _, tokenizer = family
    text = tokenizer.apply_chat_template([message_fields(USER)], tokenize=False, add_generation_prompt=True)
    assert render((USER,), tokenizer, generation=True) == text


def test_thinking_that_only_generation_starts_with_is_no_part_of_a_sequence(grid_groups: Any) -> None:
    tokenizer = tokenizer_of(FAMILIES["deepseek r1"])
    group = group_of(grid_groups(1)[0], (USER,), ANSWERS[0])
    assert render((USER,), tokenizer, generation=True).endswith("<think>\n")
    assert not tokenizer.decode(list(TokenIds.of(group, tokenizer).prompt_ids[0])).endswith("<think>\n")
    short = encode_group(
        replace(group, prompts=tuple((replace(p[0], content="past " * 90 + p[0].content),) for p in (group.prompts))),
        tokenizer,
        80,
        "left",
    )
    assert isinstance(short, EncodedGroup)
    assert short.truncated
    assert tokenizer.decode(list(short.prompt_ids[1])).endswith("Use at least 10 words.<\uff5cAssistant\uff5c>")


def with_template(tokenizer: Any, template: str) -> Any:
    import copy

    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


def rejection(group: RelationGroup, tokenizer: Any) -> Rejection:
    found = encode_group(group, tokenizer, 4096)
    assert isinstance(found, Rejection)
    assert (found.stage, found.pair_id, found.source) == ("render", group.pair_id, group.source)
    assert "Use a model whose chat template supports such conversations" in found.reason
    return found


def test_what_a_template_refuses_is_a_rejection_with_its_words(tokenizer: Any, grid_groups: Any) -> None:
    (group,) = grid_groups(1)
    no_system = with_template(tokenizer, (TEMPLATES / "refuses_system.jinja").read_text())
    system = (Message("system", "Be brief."), USER)
    found = rejection(group_of(group, system, ANSWERS[0]), no_system)
    assert "refuses system, user: System role not supported" in found.reason
    assert isinstance(encode_group(group_of(group, (USER,), ANSWERS[0]), no_system, 4096), EncodedGroup)
    gemma = tokenizer_of(FAMILIES["gemma 2"])
    two = rejection(group_of(group, (USER, USER), ANSWERS[0]), gemma)
    assert "refuses user, user: Conversation roles must alternate" in two.reason


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ 1 // 0 }}", "refuses user: integer division"),  # a template is a program
        ("{% for m in messages %}{{ m.text.strip() }}{% endfor %}", "refuses user: "),
        ("{% if", "refuses user: "),
        ("{{ messages[-1]['role'] }}", "leaves out the text of message 0"),
        ("{{ messages[0]['content'] }}", "leaves out the text of message 1 (assistant: 'Sunlight"),
    ],
)
def test_a_broken_template_is_a_rejection(template: str, words: str, tokenizer: Any, grid_groups: Any) -> None:
    group = group_of(grid_groups(1)[0], (USER,), ANSWERS[0])
    assert words in rejection(group, with_template(tokenizer, template)).reason


def test_a_template_that_drops_the_text_is_refused(tokenizer: Any, grid_groups: Any) -> None:
    (group,) = grid_groups(1)
    parts = with_template(tokenizer, (TEMPLATES / "content_parts.jinja").read_text())
    text = group.prompts[0][0].content[:20]
    assert f"leaves out the text of message 0 (user: '{text}" in rejection(group, parts).reason
    # Cut after some characters, x, x+ and x- come out alike.
    first = with_template(tokenizer, "{% for m in messages %}{{ m['content'][:30] + eos_token }}{% endfor %}")
    assert "leaves out the text" in rejection(group, first).reason


def test_prompts_that_are_the_same_to_the_model_are_refused(grid_groups: Any) -> None:
    tokenizer = tokenizer_of(FAMILIES["phi 3"])  # no bytes: what the vocabulary lacks is <unk>
    prompts = tuple((Message("user", f"Why? {word}"),) for word in ("", "河", "山"))
    group = replace(grid_groups(1)[0], prompts=prompts, responses=ANSWERS[0])
    assert "prompts 1 and 2 differ, but have the same token ids" in rejection(group, tokenizer).reason


CALL = canonical_json([{"type": "function", "function": {"name": "weather", "arguments": {"place": "Ulm"}}}])
TOOLS = (
    Message("user", "How is it in Ulm?"),
    Message("assistant", "", tool_calls=CALL),
    Message("tool", '{"degrees": 21}', name="weather"),
)


def test_tool_calls_are_kept_where_the_template_takes_them(grid_groups: Any) -> None:
    (base,) = grid_groups(1)
    said = [replace(TOOLS[0], content=TOOLS[0].content + side) for side in ("", " Use 10 words.", " Use 9 words.")]
    group = replace(base, prompts=tuple((one, *TOOLS[1:]) for one in said), responses=("It is warm.", "It is cold."))
    qwen = tokenizer_of(FAMILIES["qwen3"])
    encoded = encode_group(group, qwen, 4096)
    assert isinstance(encoded, EncodedGroup), encoded
    text = qwen.decode(list(encoded.token_ids(2)))
    assert '<tool_call>\n{"name": "weather", "arguments": {"place": "Ulm"}}\n</tool_call><|im_end|>' in text
    assert '<tool_response>\n{"degrees": 21}\n</tool_response>' in text
    turns = [message_fields(turn) for turn in (*group.prompts[1], Message("assistant", "It is warm."))]
    assert list(encoded.token_ids(2)) == qwen.apply_chat_template(turns, tokenize=True, return_dict=False)
    for name, words in {
        "llama 3": "leaves out the tool call 'weather' of message 1",
        "zephyr": "leaves out the tool call 'weather' of message 1",
        "gemma 2": "refuses user, assistant with tool_calls, tool: Conversation roles must alternate",
    }.items():
        assert words in rejection(group, tokenizer_of(FAMILIES[name])).reason
    plain = tokenizer_of(FAMILIES["qwen2.5 (ChatML)"])
    plain.chat_template = None
    assert "no chat template, which tools and tool calls need" in rejection(group, plain).reason


OFFERED = canonical_json(
    [{"type": "function", "function": {"name": "weather", "description": "Degrees", "parameters": {"type": "object"}}}]
)


def test_a_rows_tools_are_given_to_the_template(grid_groups: Any) -> None:
    """To the token as `apply_chat_template(tools=...)`; a template that leaves them out rejects the group."""
    user = Message("user", "How is the weather in Ulm?", tools=OFFERED)
    group = group_of(grid_groups(1)[0], (user,), ("It is warm.", "It is cold."))
    assert [one[-1].tools for one in group.prompts] == [OFFERED] * 3
    for name in ("qwen2.5 (ChatML)", "qwen3"):
        tokenizer = tokenizer_of(FAMILIES[name])
        encoded = encode_group(group, tokenizer, 4096)
        assert isinstance(encoded, EncodedGroup), encoded
        turns = [message_fields(turn) for turn in (*group.prompts[1], Message("assistant", "It is warm."))]
        whole = tokenizer.apply_chat_template(turns, tools=json.loads(OFFERED), tokenize=True, return_dict=False)
        assert list(encoded.token_ids(2)) == whole
        assert '"description": "Degrees"' in tokenizer.decode(whole)
        short = encode_group(group, tokenizer, 4096, "left")
        assert short == encoded
    for name in ("llama 3", "zephyr", "phi 3"):  # the word weather is in the user's turn, and its tool is not
        found = rejection(group, tokenizer_of(FAMILIES[name]))
        assert "the chat template leaves out the row's tools (weather)" in found.reason
    plain = tokenizer_of(FAMILIES["qwen3"])
    plain.chat_template = None
    assert "which tools and tool calls need" in rejection(group, plain).reason


def test_tools_stay_where_a_prompt_is_cut(grid_groups: Any) -> None:
    tokenizer = tokenizer_of(FAMILIES["qwen3"])
    turns = (Message("user", "past " * 900), Message("assistant", "Yes."), Message("user", "And now?", tools=OFFERED))
    group = group_of(grid_groups(1)[0], turns, ("It is warm.", "It is cold."))
    encoded = encode_group(group, tokenizer, 1200, "left")
    assert isinstance(encoded, EncodedGroup), encoded
    assert encoded.truncated
    text = tokenizer.decode(list(encoded.prompt_ids[2]))
    assert "past past" not in text
    assert '"description": "Degrees"' in text


def test_a_reward_model_is_read_where_it_was_trained() -> None:
    assert read_at([5, 6, 0, 0], 0) == [5, 6]  # padding is EOS: transformers looks at the token before
    assert read_at([5, 6, 0, 0], 1) == [5, 6, 0, 0]
    assert read_at([5, 0, 6], 0) == [5, 0, 6]
    assert read_at([5, 6], None) == [5, 6]
    assert read_at([0, 0], 0) == [0]


def test_render_error_is_no_users_mistake(tokenizer: Any) -> None:
    with pytest.raises(RenderError, match="refuses system, user"):
        render((Message("system", "a"), USER), tokenizer_of(FAMILIES["gemma 2"]), generation=True)
