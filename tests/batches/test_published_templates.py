"""Templates as their models ship them, and Mistral's own tokenizers: ids of the whole conversation, or the reason."""

import re
import shutil
from pathlib import Path
from typing import Any

import mistral_common
import pytest
import trl
from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from mapl_ray.batches import EncodedGroup, encode_group
from mapl_ray.data.records import Message, Rejection, message_fields
from tests.batches.families import MISTRAL, MISTRAL3, byte_level, published
from tests.batches.test_templates import ANSWERS, TURNS, USER, group_of

DATA = Path(mistral_common.__file__).parent / "data"
_SYSTEM = Message("system", "Use words.")
PROMPTS = {"user": (USER,), "turns": TURNS, "system": (_SYSTEM, USER), "system, turns": (_SYSTEM, *TURNS)}
# `<stem>_training.jinja` are TRL's own changes of them.
NAMES = sorted(
    path.stem
    for path in (Path(trl.__file__).parent / "chat_templates").glob("*.jinja")
    if not path.stem.endswith("_training")
)
MARK = re.compile(r"<\|[A-Za-z_]{1,40}\|?>|<[a-z_]{1,40}\|>|<\uff5c[^\uff5c\n]{1,40}\uff5c>|<(?:start|end)_of_turn>")
ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<turn|>", "<|return|>", "<|END_OF_TURN_TOKEN|>")
# Of models that read images: their templates look for text in parts, and leave out content that is text alone.
OF_PARTS = {"idefics3", "llava_next", "smolvlm"}
NO_SYSTEM = {"gemma"}
# It writes nothing after an answer: ours ends with EOS, or a model would never learn where to stop.
WITHOUT_END = {"glm4moe"}


def tokenizer_of(name: str) -> Any:
    """A small byte-level one whose special tokens are the template's marks."""
    template = published(name)
    marks = list(dict.fromkeys(MARK.findall(template)))
    eos = next((mark for mark in ENDS if mark in marks), "<eos>")
    bos = next((mark for mark in marks if "begin" in mark), "<bos>")
    marks = list(dict.fromkeys([bos, eos, *marks]))
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(marks),
        bos_token=bos,
        eos_token=eos,
        additional_special_tokens=marks[2:],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def assert_whole(encoded: EncodedGroup, group: Any, tokenizer: Any, end: list[int]) -> None:
    for index, cell in enumerate(group.sequences):
        turns = (*group.prompts[cell.prompt], Message("assistant", group.responses[cell.response]))
        whole = tokenizer.apply_chat_template(
            [message_fields(turn) for turn in turns], tokenize=True, return_dict=False
        )
        assert list(encoded.token_ids(index)) == whole + end


def test_there_are_many() -> None:
    assert len(NAMES) >= 40
    assert {"qwen3", "llama3", "gemma", "gemma3", "phi3", "cohere", "deepseekv3", "gptoss"} <= {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_the_whole_conversation(name: str, grid_groups: Any) -> None:
    tokenizer, (base,) = tokenizer_of(name), grid_groups(1)
    for kind, prompt in PROMPTS.items():
        group = group_of(base, prompt, ANSWERS[0])
        encoded = encode_group(group, tokenizer, 4096)
        if name in OF_PARTS or (name in NO_SYSTEM and "system" in kind):
            assert isinstance(encoded, Rejection)
            words = "System role not supported" if name in NO_SYSTEM else "leaves out the text|has no attribute 'text'"
            assert re.search(words, encoded.reason), encoded.reason
        else:
            assert isinstance(encoded, EncodedGroup), encoded
            assert_whole(encoded, group, tokenizer, [tokenizer.eos_token_id] if name in WITHOUT_END else [])


@pytest.mark.parametrize(
    ("file", "template"),
    [("tokenizer.model.v1", MISTRAL), ("mistral_instruct_tokenizer_240323.model.v3", MISTRAL3)],
)
def test_mistrals_own_tokenizers(file: str, template: str, tmp_path: Path, grid_groups: Any) -> None:
    """With the vocabularies of Mistral-7B; of version 3 also as Mistral's own library encodes the conversation."""
    shutil.copy(DATA / file, tmp_path / "tokenizer.model")
    tokenizer = LlamaTokenizer.from_pretrained(tmp_path)
    tokenizer.chat_template = template
    for prompt in ((USER,), TURNS):
        group = group_of(grid_groups(1)[0], prompt, ("Sunlight scatters in the air.", "1. Use 10 words; a <b> & 7!"))
        encoded = encode_group(group, tokenizer, 4096)
        assert isinstance(encoded, EncodedGroup), encoded
        assert_whole(encoded, group, tokenizer, [])
        if template == MISTRAL3:
            for index, cell in enumerate(group.sequences):
                turns = (*group.prompts[cell.prompt], Message("assistant", group.responses[cell.response]))
                assert list(encoded.token_ids(index)) == as_mistral_encodes(turns)


def as_mistral_encodes(turns: tuple[Message, ...]) -> list[int]:
    kinds = {"user": UserMessage, "assistant": AssistantMessage}
    request = ChatCompletionRequest(messages=[kinds[turn.role](content=turn.content) for turn in turns])
    library = MistralTokenizer.from_file(DATA / "mistral_instruct_tokenizer_240323.model.v3", ValidationMode.finetuning)
    found: list[int] = library.encode_chat_completion(request).tokens
    return found
