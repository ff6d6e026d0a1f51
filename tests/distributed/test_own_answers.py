"""Answers to the run's own prompts, before and after DPO, with the real Ray and vLLM on tiny models."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mapl_ray.batches import encode_prompt
from mapl_ray.config import DataConfig, RunConfig, SynthesisConfig, parse_config
from mapl_ray.data.records import GROUP_SCHEMA, PreferencePair, RelationGroup
from mapl_ray.data.shards import commit, iter_rows, read_groups, write_part
from mapl_ray.distributed.answer_stage import BEFORE, asked_models
from mapl_ray.distributed.evaluate import run_evaluation
from mapl_ray.evaluation.checkpoints import named_checkpoints
from mapl_ray.evaluation.own_prompts import asked_prompt
from mapl_ray.evaluation.own_results import OwnResults
from mapl_ray.evaluation.own_text import answers_text
from mapl_ray.instructions import Instruction
from mapl_ray.models import load_policy
from mapl_ray.models.tiny import draw_llama
from mapl_ray.preferences import read_pairs
from mapl_ray.synthesis import synthesize
from mapl_ray.training.export import export_model

NEW_TOKENS = 12
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"place": "Ulm"}}}
WITH_TOOLS = [
    {"role": "user", "content": "How is the weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": '{"degrees": 21}'},
]
CHOSEN = "It is 21 degrees today, with a light wind and no rain. Take a hat, for the sun is strong at noon."


def config_of(folder: Path, base: Path, models: list[Path], number: int = 4) -> RunConfig:
    values = {
        "name": "run",
        "output_dir": str(folder),
        "model": {"name_or_path": str(base)},
        "train": {"max_sequence_tokens": 512},
        "scoring": {"max_model_len": 512},
        "evaluation": {
            "models": [str(model) for model in models],
            "own_prompts": number,
            "max_new_tokens": NEW_TOKENS,
            "bootstrap_samples": 20,
        },
    }
    return parse_config(values, "test")


@pytest.fixture(scope="module")
def policy(tiny_model: Path, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with another output layer: it answers otherwise."""
    model, folder = load_policy(tiny_model, "float32"), tmp_path_factory.mktemp("policies") / "policy"
    with torch.no_grad():
        weight = model.get_output_embeddings().weight
        weight.copy_(weight.roll(1, dims=0) * 1.5)
    export_model(model, tokenizer, None, folder, "A test's model.")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out groups in two parts; one prompt ends in a tool's turn."""
    folder = tmp_path_factory.mktemp("own")
    rows: list[dict[str, Any]] = [{"prompt": f"Why {n}?", "chosen": CHOSEN, "rejected": f"Bread {n}"} for n in range(2)]
    rows.append({"prompt": WITH_TOOLS, "chosen": CHOSEN, "rejected": "Warm."})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = read_pairs(DataConfig(path=str(folder / "pairs.jsonl")))
    config = SynthesisConfig(max_instructions=2)
    made = [synthesize(pair, config, 0) for pair in pairs if isinstance(pair, PreferencePair)]
    groups = [group for group in made if isinstance(group, RelationGroup)]
    assert len(groups) == 3
    for split, some in (("train", groups[:1]), ("eval", groups)):
        directory = folder / "run" / "groups" / split
        parts = [
            write_part(directory, n, [group.to_row() for group in piece], [], GROUP_SCHEMA, str(n))
            for n, piece in enumerate((some[:2], some[2:]))
        ]
        commit(directory, "synthesize", "made for the test", parts)
    return folder


def greedy(folder: Path, prompts: list[tuple[int, ...]], tokenizer: Any) -> list[str]:
    """By transformers. vLLM keeps back what is not yet a whole character at an answer's end."""
    model = load_policy(folder, "float32")
    texts = []
    for ids in prompts:
        found = model.generate(
            torch.tensor([ids]), do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=tokenizer.eos_token_id
        )
        texts.append(tokenizer.decode(found[0, len(ids) :], skip_special_tokens=True).rstrip("\ufffd"))
    return texts


def own_of(config: RunConfig) -> OwnResults:
    found = run_evaluation(config)["own_prompts"]
    assert found is not None
    return found


@pytest.mark.ray
@pytest.mark.vllm
@pytest.mark.long
def test_answers_are_those_of_each_model_and_are_made_once(
    run: Path, local_ray: None, tiny_model: Path, policy: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """One engine after the other in one process: an answer of the wrong model would differ from transformers'."""
    config = config_of(run, tiny_model, [policy])
    results = run_evaluation(config)
    own = results["own_prompts"]
    assert own is not None
    assert "own prompts: 3 answered by before DPO, policy; 2 parts made" in capsys.readouterr().out
    assert list(own["models"]) == [BEFORE, "policy"]
    groups = read_groups(run / "run" / "evaluation" / "rows" / "own-prompts")
    assert len(groups) == 3
    prompts = [encode_prompt(group.prompts[asked_prompt(group)], tokenizer) for group in groups]
    with_tools = [group.prompts[0][-1].role for group in groups].index("tool")
    assert groups[with_tools].prompts[0][1].tool_calls is not None
    assert '"degrees": 21' in tokenizer.decode(prompts[with_tools])
    answers = {}
    for name, folder in ((BEFORE, tiny_model), ("policy", policy)):
        target = run / "run" / "evaluation" / "answers" / name.replace(" ", "-")
        answers[name] = [row["answer"] for row in iter_rows(target)]
        assert answers[name] == greedy(folder, prompts, tokenizer)
        verdicts = [
            Instruction.from_record(record).verdict(answer) is True and bool(answer.strip())
            for group, answer in zip(groups, answers[name], strict=True)
            for record in group.instructions[asked_prompt(group)]
        ]
        assert own["models"][name]["instruction"]["value"] == pytest.approx(sum(verdicts) / len(verdicts))
    assert answers[BEFORE] != answers["policy"]
    assert [shown["answers"]["policy"]["text"] for shown in own["shown"]] == answers["policy"]
    provenance = results["provenance"]
    assert provenance is not None
    assert BEFORE in provenance["chat_templates"]
    assert len(provenance["data"]["own prompts"]) == 64
    assert "before: " in answers_text(own)
    # A second evaluation has nothing to generate.
    written = run / "run" / "evaluation"
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*.parquet")}
    assert own_of(config) == own
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*.parquet")} == before
    assert "own prompts: 3 answered by before DPO, policy; already there" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.vllm
@pytest.mark.faults
def test_a_model_that_vllm_does_not_take_is_left_out_and_the_rest_goes_on(
    run: Path, local_ray: None, policy: Path, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """vLLM's CPU attention has no kernel for heads of 8."""
    model = draw_llama(
        tokenizer, 0, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=512,
    )  # fmt: skip
    export_model(model, tokenizer, None, tmp_path / "base", "A test's model.")
    shutil.copytree(run / "run" / "groups", tmp_path / "run" / "groups")
    own = own_of(config_of(tmp_path, tmp_path / "base", [policy], number=1))
    assert list(own["models"]) == ["policy"]
    assert own["before"] is None
    assert list(own["left_out"]) == [BEFORE]
    assert str(tmp_path / "base") in own["left_out"][BEFORE]
    printed = capsys.readouterr().out
    assert f"own prompts: no answers by {BEFORE}: answers: {tmp_path / 'base'}" in printed
    assert "own prompts: 1 answered by policy; 1 parts made" in printed


def test_the_model_before_is_not_asked_twice(tiny_model: Path, policy: Path, tmp_path: Path) -> None:
    """A copy elsewhere is the same model."""
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copied"))
    config = config_of(tmp_path, tiny_model, [copy, policy])
    asked = asked_models(config, named_checkpoints(config.evaluation.models))
    assert asked is not None
    assert [one.name for one in asked.policies] == ["copied", "policy"]
    assert asked.before == "copied"
    added = asked_models(config, named_checkpoints([str(policy)]))
    assert added is not None
    assert [one.name for one in added.policies] == [BEFORE, "policy"]


def test_a_model_without_chat_template_is_left_out_with_a_message(
    tiny_model: Path, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    (base / "chat_template.jinja").unlink()
    config = config_of(tmp_path, base, [policy])
    asked = asked_models(config, named_checkpoints(config.evaluation.models))
    assert asked is not None
    assert [one.name for one in asked.policies] == ["policy"]
    assert asked.before is None
    assert f"own prompts: no answers by {BEFORE}: {base} has no chat template" in capsys.readouterr().out


def test_without_policies_or_prompts_nobody_is_asked(
    tiny_model: Path, tiny_reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, tiny_model, [tiny_reward_model])
    assert asked_models(config, named_checkpoints(config.evaluation.models)) is None
    assert "no policy is evaluated" in capsys.readouterr().out
    config = config_of(tmp_path, tiny_model, [tiny_model], number=0)
    assert asked_models(config, named_checkpoints(config.evaluation.models)) is None
    assert capsys.readouterr().out == ""
