"""Token ids of a sequence: BOS once, EOS once, the boundary where it belongs, whatever the tokenizer adds by itself."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from mapl_ray.batches import EncodedGroup, encode_group
from mapl_ray.data.records import Message, RelationGroup
from mapl_ray.errors import UserError
from mapl_ray.scoring import check_same_tokenizer, tokenizer_identity


def variant(tokenizer: Any, *, adds_bos: bool, template: bool, bos: bool = True) -> Any:
    """The same vocabulary with other habits."""
    changed = copy.deepcopy(tokenizer)
    if adds_bos:  # as Llama's and Gemma's do at every `encode`
        changed.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", changed.bos_token_id)]
        )
        assert changed.encode("river")[0] == changed.bos_token_id
    if not template:
        changed.chat_template = None
    if not bos:
        changed.bos_token = None
    return changed


def encoded(group: RelationGroup, tokenizer: Any) -> EncodedGroup:
    made = encode_group(group, tokenizer, 256)
    assert isinstance(made, EncodedGroup)
    return made


@pytest.mark.parametrize(
    ("adds_bos", "template", "bos"),
    [
        (True, True, True),  # the template writes BOS, and `encode` would write another
        (True, False, True),
        (False, True, True),
        (False, False, True),
        (False, True, False),  # Qwen has none
        (False, False, False),
    ],
)
def test_bos_and_eos_once(adds_bos: bool, template: bool, bos: bool, tokenizer: Any, grid_groups: Any) -> None:
    changed = variant(tokenizer, adds_bos=adds_bos, template=template, bos=bos)
    (group,) = grid_groups(1)
    made = encoded(group, changed)
    start = tokenizer.bos_token_id
    for index, cell in enumerate(group.sequences):
        ids, split = made.token_ids(index), made.prompt_length(index)
        assert [i for i, token in enumerate(ids) if token == start] == ([0] if bos else [])
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in ids[split:-1]
        # The boundary: what stands before it is the prompt ready for an answer, what follows the response alone.
        assert tokenizer.decode(ids[split:-1]) == group.responses[cell.response]
        rendered = tokenizer.decode(ids[:split])
        assert rendered.endswith("<|assistant|>" if template else "assistant: ")
        assert group.prompts[cell.prompt][-1].content in rendered
        assert made.response_ids[cell.response] == ids[split:]  # the same under every prompt


def test_a_response_that_starts_with_a_blank_keeps_it(tokenizer: Any, grid_groups: Any) -> None:
    group = replace(grid_groups(1)[0], responses=(" river stone", "river stone"))
    made = encoded(group, tokenizer)
    assert made.response_ids[0] != made.response_ids[1]
    assert tokenizer.decode(made.response_ids[0][:-1]) == " river stone"
    assert encoded(replace(group, prompts=((Message("user", "x "),), *group.prompts[1:])), tokenizer).response_ids == (
        made.response_ids
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda t: setattr(t, "chat_template", "{{ messages[0]['content'] }}"), "chat template"),
        (lambda t: setattr(t, "eos_token", "<pad>"), "eos token id"),
        (lambda t: t.add_tokens(["sunflower"]), "vocabulary"),
        # The same words and another way of cutting: every space is a word's beginning, or none is.
        (lambda t: setattr(t.backend_tokenizer.pre_tokenizer, "add_prefix_space", True), "way of splitting"),
    ],
)
def test_another_tokenizer_is_refused(change: Any, word: str, tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    import shutil

    other = shutil.copytree(tiny_model, tmp_path / "other")
    check_same_tokenizer(str(other), str(tiny_model))
    changed = copy.deepcopy(tokenizer)
    change(changed)
    changed.save_pretrained(other)
    assert tokenizer_identity(changed) != tokenizer_identity(tokenizer)
    with pytest.raises(UserError, match=rf"not that of .*{word}") as told:
        check_same_tokenizer(str(other), str(tiny_model))
    assert "Use a reference model" in str(told.value)
