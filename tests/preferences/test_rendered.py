"""Prompts and responses that a chat template has rendered already: parsed into turns, or refused with the marker."""

from typing import Any

import pytest

from mapl_ray.config import DataConfig
from mapl_ray.data.records import Message, PreferencePair, Rejection
from mapl_ray.preferences.formats import detect_format, parse_row

ASK, GOOD, BAD = "How do I keep basil fresh?", "Stand it in a glass of water.", "Throw it in the freezer drawer."
SYSTEM, REPLY, AGAIN = "Be brief.", "Which kind?", "Thai basil."
USER = Message("user", ASK)
TALK = (Message("system", SYSTEM), USER, Message("assistant", REPLY), Message("user", AGAIN))

# Each family's own rendering of system, user, assistant, user, and where the assistant's turn begins; and the end of a
# turn. Without a system turn where the family has none.
RENDERED = {
    "ChatML": (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{ASK}<|im_end|>\n<|im_start|>assistant\n{REPLY}"
        f"<|im_end|>\n<|im_start|>user\n{AGAIN}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>\n",
    ),
    "Phi-4": (
        f"<|im_start|>system<|im_sep|>{SYSTEM}<|im_end|><|im_start|>user<|im_sep|>{ASK}<|im_end|><|im_start|>assistant"
        f"<|im_sep|>{REPLY}<|im_end|><|im_start|>user<|im_sep|>{AGAIN}<|im_end|><|im_start|>assistant<|im_sep|>",
        "<|im_end|>",
    ),
    "Llama 3": (
        f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|eot_id|><|start_header_id|>user"
        f"<|end_header_id|>\n\n{ASK}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{REPLY}<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\n{AGAIN}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
    "Llama 4": (
        f"<|begin_of_text|><|header_start|>system<|header_end|>\n\n{SYSTEM}<|eot|><|header_start|>user<|header_end|>\n\n"
        f"{ASK}<|eot|><|header_start|>assistant<|header_end|>\n\n{REPLY}<|eot|><|header_start|>user<|header_end|>\n\n"
        f"{AGAIN}<|eot|><|header_start|>assistant<|header_end|>\n\n",
        "<|eot|>",
    ),
    "Llama 2": (
        f"<s>[INST] <<SYS>>\n{SYSTEM}\n<</SYS>>\n\n{ASK} [/INST] {REPLY} </s><s>[INST] {AGAIN} [/INST]",
        " </s>",
    ),
    "Mistral": (f"<s> [INST] {ASK} [/INST] {REPLY}</s> [INST] {AGAIN} [/INST]", "</s>"),
    "Gemma": (
        f"<bos><start_of_turn>user\n{ASK}<end_of_turn>\n<start_of_turn>model\n{REPLY}<end_of_turn>\n<start_of_turn>user\n"
        f"{AGAIN}<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>\n",
    ),
    "Zephyr": (
        f"<|system|>\n{SYSTEM}</s>\n<|user|>\n{ASK}</s>\n<|assistant|>\n{REPLY}</s>\n<|user|>\n{AGAIN}</s>\n"
        "<|assistant|>\n",
        "</s>\n",
    ),
    "Phi-3": (
        f"<|system|>\n{SYSTEM}<|end|>\n<|user|>\n{ASK}<|end|>\n<|assistant|>\n{REPLY}<|end|>\n<|user|>\n{AGAIN}<|end|>\n"
        "<|assistant|>\n",
        "<|end|>\n<|endoftext|>",
    ),
    "HH": (f"\n\nHuman: {ASK}\n\nAssistant: {REPLY}\n\nHuman: {AGAIN}\n\nAssistant:", ""),
    "### Human": (f"### Human: {ASK}\n### Assistant: {REPLY}\n### Human: {AGAIN}\n### Assistant:", ""),
    "HelpSteer": (
        f"{ASK}\n<extra_id_1>Assistant\n{REPLY}\n<extra_id_1>User\n{AGAIN}\n<extra_id_1>Assistant\n",
        "",
    ),
    "Alpaca": (
        f"{SYSTEM}\n\n### Instruction:\n{ASK}\n\n### Response:\n{REPLY}\n\n"
        f"### Instruction:\n{AGAIN}\n\n### Response:\n",
        "</s>",
    ),
}
WITHOUT_SYSTEM = {"Mistral", "Gemma", "HH", "### Human", "HelpSteer"}


def parse(values: dict[str, Any]) -> PreferencePair | Rejection:
    config = DataConfig()
    (found,) = parse_row(values, detect_format(config, [values], "f"), config, "f", 0)
    return found


def pair(prompt: Any, chosen: Any, rejected: Any) -> PreferencePair:
    found = parse({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    assert isinstance(found, PreferencePair), found
    return found


def reason(prompt: Any, chosen: Any = GOOD, rejected: Any = BAD) -> str:
    found = parse({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    assert isinstance(found, Rejection), found
    return found.reason


@pytest.mark.parametrize("family", RENDERED)
def test_a_rendered_prompt_is_parsed_into_turns_and_ends_come_off_the_responses(family: str) -> None:
    rendered, end = RENDERED[family]
    talk = TALK[1:] if family in WITHOUT_SYSTEM else TALK
    found = pair(rendered, f" {GOOD}{end}", BAD + end)
    assert (found.prompt, found.chosen, found.rejected) == (talk, GOOD, BAD)


@pytest.mark.parametrize("family", RENDERED)
def test_whole_conversations_in_chosen_and_rejected_beside_a_prompt_or_without(family: str) -> None:
    rendered, end = RENDERED[family]
    talk = TALK[1:] if family in WITHOUT_SYSTEM else TALK
    if family == "Alpaca":  # a response with a preamble of its own would be a text that shows the format
        rendered, talk = rendered.removeprefix(SYSTEM).lstrip(), talk[1:]
    chosen, rejected = (f"{rendered} {response}{end}" for response in (GOOD, BAD))
    assert pair(rendered, chosen, rejected).prompt == talk
    found = parse({"chosen": chosen, "rejected": rejected})
    assert isinstance(found, PreferencePair), found
    assert (found.prompt, found.chosen, found.rejected) == (talk, GOOD, BAD)


def test_transcripts_beside_a_plain_prompt() -> None:
    found = pair(ASK, *(f"\n\nHuman: {ASK}\n\nAssistant: {response}" for response in (GOOD, BAD)))
    assert (found.prompt, found.chosen, found.rejected) == ((USER,), GOOD, BAD)
    found = pair(ASK, f"\n\nAssistant: {GOOD}", f"<|im_start|>assistant\n{BAD}<|im_end|>")
    assert (found.prompt, found.chosen, found.rejected) == ((USER,), GOOD, BAD)
    other = [f"\n\nHuman: Why?\n\nAssistant: {response}" for response in (GOOD, BAD)]
    assert reason(ASK, *other).startswith(f"prompt='{ASK}': not how chosen and rejected begin")


def test_alpaca_preamble_and_input() -> None:
    preamble = "Below is an instruction that describes a task. Write a response.\n\n"
    found = pair(f"{preamble}### Instruction:\n{ASK}\n\n### Response:\n", GOOD, BAD)
    assert found.prompt == (USER,)
    found = pair(f"{preamble}### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:", GOOD, BAD)
    assert found.prompt == (Message("user", "Add.\n\n1 2"),)


@pytest.mark.parametrize(
    ("prompt", "marker"),
    [
        (f"Be kind.\n<|im_start|>user\n{ASK}<|im_end|>", "<|im_start|>"),
        (f"<|im_start|>tool\n{ASK}<|im_end|>", "unknown role 'tool'"),
        (f"<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{ASK}", "<|START_OF_TURN_TOKEN|>"),
        (f"<\uff5cUser\uff5c>{ASK}<\uff5cAssistant\uff5c>", "<\uff5cUser\uff5c>"),
        (f"GPT4 Correct User: {ASK}<|end_of_turn|>GPT4 Correct Assistant:", "<|end_of_turn|>"),
        (f"A chat. USER: {ASK} ASSISTANT:", "ASSISTANT:"),
        (f"User: {ASK}\nAssistant:", "Assistant:"),
        (f"A system text.\n\nHuman: {ASK}\n\nAssistant:", "Assistant:"),
        (f"{ASK}\n### Response:", "### Response:"),
        (f"Instruct: {ASK}\nOutput:", "Output:"),
        (f"[INST] {ASK} [INST] again", "'[INST]' twice in a row"),
        (f"[SYSTEM_PROMPT]x[/SYSTEM_PROMPT][INST]{ASK}[/INST]", "[SYSTEM_PROMPT]"),
    ],
)
def test_what_looks_rendered_and_is_not_known_is_refused_with_the_marker(prompt: str, marker: str) -> None:
    said = reason(prompt)
    assert said.startswith("prompt")
    assert marker in said
    assert "rendered" in said


@pytest.mark.parametrize(
    ("prompt", "chosen", "marker"),
    [
        (ASK, f"{GOOD}<|im_end|>\n<|im_start|>user\nMore?", "<|im_end|>"),
        (f"\n\nHuman: {ASK}\n\nAssistant:", f" {GOOD}\n\nHuman: More?\n\nAssistant: No.", "Human:"),
        (f"### Instruction:\n{ASK}\n\n### Response:\n", f"{GOOD}\n\n### Instruction:\nMore?", "### Instruction:"),
        (f"[INST] {ASK} [/INST]", f"{GOOD}</s>[INST] More? [/INST]", "[INST]"),
    ],
)
def test_a_response_that_runs_into_the_next_turn_is_refused(prompt: str, chosen: str, marker: str) -> None:
    said = reason(prompt, chosen)
    assert said.startswith("chosen=")
    assert f"has the marker {marker!r}" in said


@pytest.mark.parametrize(
    "prompt",
    [
        "Write a dialogue that begins with:\n\nHuman: Hi\n\nAssistant: Hello",
        "Human: a history",
        "Explain the format ### Instruction: and ### Response: to me.",
        "Question: Why?\nAnswer:",
        "What does f <| x |> g mean in F#?",
        "Strike <s>this</s> out.",
    ],
)
def test_plain_words_are_left_alone(prompt: str) -> None:
    found = pair(prompt, f"{GOOD}\n\n### Instruction:\nAnother.\n\nHuman: x", f"<s>{BAD}</s>")
    assert found.prompt == (Message("user", prompt),)
    assert (found.chosen, found.rejected) == (f"{GOOD}\n\n### Instruction:\nAnother.\n\nHuman: x", f"<s>{BAD}</s>")


@pytest.mark.parametrize("sep", ["\n", "\n\n", " ", " \n"])
def test_the_prompt_at_the_head_of_both_responses_is_no_part_of_them(sep: str) -> None:
    found = pair(ASK, f"{ASK}{sep}{GOOD}", f"{ASK}{sep}{BAD}")
    assert (found.prompt, found.chosen, found.rejected) == ((USER,), GOOD, BAD)


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        (ASK, f"{ASK} {GOOD}", BAD),  # one of them quotes the question
        ("Hello!", "Hello! How are you?", "Hello! What now?"),
        ("Once upon a time", "Once upon a time there was a king.", "Once upon a time it rained."),
        (ASK, ASK, f"{ASK} {BAD}"),
    ],
)
def test_responses_that_begin_like_the_prompt_by_themselves_stay(prompt: str, chosen: str, rejected: str) -> None:
    found = pair(prompt, chosen, rejected)
    assert (found.chosen, found.rejected) == (chosen, rejected)


@pytest.mark.parametrize(
    "unit",
    [
        "\n",
        " ",
        "\n\nHuman:",
        "<|im_start|>user\n",
        "[INST]",
        "### Response:\n",
        "<|",
        "<|a",
        "</s> ",
        "<s>",
        "[{'role': ",
        "-",
    ],
)
def test_hostile_texts_take_time_in_proportion_to_their_length(unit: str) -> None:
    # Where any step took time quadratic in the length, this test would run for hours.
    for text in (unit * (400_000 // len(unit)), "[{'role':" + unit * 60_000, ASK + unit * (400_000 // len(unit)) + "x"):
        assert isinstance(parse({"prompt": text, "chosen": text + "a", "rejected": text + "b"}), Rejection)
