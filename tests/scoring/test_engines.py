"""vLLM on the CPU against transformers, on the same token ids."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from mapl_ray.batches import EncodedGroup, collate, encode_group, encode_prompt
from mapl_ray.config import ScoringConfig, parse_config
from mapl_ray.data.records import Message, Rejection, RelationGroup
from mapl_ray.errors import RunError
from mapl_ray.models import PolicyLogps, RewardScores, load_policy, load_reward_model
from mapl_ray.scoring import EngineOptions, TreeOptions, score_groups
from mapl_ray.scoring.engine import try_engine
from mapl_ray.scoring.trees import TreeScorer
from mapl_ray.training.export import export_model

SCORE = """
import json, sys
from mapl_ray.models import load_tokenizer
from mapl_ray.data.records import RelationGroup
from mapl_ray.scoring import EngineOptions, score_groups
from mapl_ray.scoring.engine import try_engine
from mapl_ray.scoring.engine import Generator, RewardScorer
spec = json.load(open(sys.argv[1]))
scorer = {"ref_logps": Generator, "rewards": RewardScorer}[spec["column"]](EngineOptions(**spec["options"]))
results, cached = [], []
for batch in spec["batches"]:
    scorer.tokenizer = load_tokenizer(batch["tokenizer"])
    groups = [RelationGroup.from_row(row) for row in batch["groups"]]
    results.append([g.to_row() for g in score_groups(groups, scorer, spec["column"])])
    cached.append(getattr(scorer, "cached_tokens", 0))
json.dump({"rows": results, "cached": cached}, open(sys.argv[2], "w"))
loaded = scorer._engine.llm_engine.vllm_config
taken = {"load_format": loaded.load_config.load_format, "trust_remote_code": loaded.model_config.trust_remote_code}
json.dump(taken, open(sys.argv[4], "w"))
if spec["prompts"]:
    json.dump(scorer.generate(spec["prompts"], spec["max_new_tokens"]), open(sys.argv[3], "w"))
"""
Batches = list[tuple[Path, list[RelationGroup]]]  # the tokenizer's directory, and what goes to the engine at once
Prompts = Sequence[Sequence[int]]
NEW_TOKENS = 12
# How far the scores of one sequence may be apart, whatever else is in the batch, in what order, and where it is cut:
# float32 sums in another order. Of log-probabilities: nats over a whole response of some 25 tokens.
BATCH_BOUND = 1e-4


def score_in_process(
    batches: Batches, model: Path | str, column: str, folder: Path, prompts: Prompts = (), **scoring: Any
) -> list[list[dict[str, Any]]]:
    """An engine keeps its threads and memory for as long as its process lives, so it gets one of its own.

    Responses to the prompts go to `folder/answers.json`.
    """
    config = ScoringConfig(max_model_len=256, **scoring)
    options = EngineOptions.of(config, str(model), None, "float32", 0)
    spec, out = folder / "spec.json", folder / "out.json"
    rows = [{"tokenizer": str(where), "groups": [group.to_row() for group in groups]} for where, groups in batches]
    wanted = {"prompts": prompts, "max_new_tokens": NEW_TOKENS}
    spec.write_text(json.dumps({"column": column, "options": asdict(options), "batches": rows, **wanted}))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [
        sys.executable,
        "-c",
        SCORE,
        str(spec),
        str(out),
        str(folder / "answers.json"),
        str(folder / "taken.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    # vLLM's own default takes pickled weights where there are no others: the options must have reached it.
    assert json.loads((folder / "taken.json").read_text()) == {"load_format": "safetensors", "trust_remote_code": False}
    results: list[list[dict[str, Any]]] = json.loads(out.read_text())["rows"]
    return results


def cut_in_three_ways(groups: list[RelationGroup], tokenizer: Path) -> Batches:
    """All at once; one by one; all at once and in another order, sequences as well."""
    backwards = [replace(group, sequences=tuple(reversed(group.sequences)), relations=()) for group in reversed(groups)]
    return [(tokenizer, groups), *((tokenizer, [group]) for group in groups), (tokenizer, backwards)]


def assert_same_however_cut(results: list[list[dict[str, Any]]], column: str, number: int) -> torch.Tensor:
    """The scores [groups, sequences] of the first way, close to those of the others."""
    whole = torch.tensor([row[column] for row in results[0]])
    single = torch.tensor([batch[0][column] for batch in results[1 : number + 1]])
    backwards = torch.tensor([row[column] for row in results[number + 1]]).flip(0, 1)
    for other in (single, backwards):
        torch.testing.assert_close(other, whole, rtol=0, atol=BATCH_BOUND)
    return whole


def expected(groups: list[RelationGroup], module: torch.nn.Module, tokenizer: Any) -> list[list[float]]:
    values = []
    for group in groups:
        encoded = encode_group(group, tokenizer, 256)
        assert isinstance(encoded, EncodedGroup)
        with torch.no_grad():
            values.append(module(collate([encoded], "padded", tokenizer.pad_token_id)).tolist())
    return values


def greedy(model: Any, ids: Sequence[int], tokenizer: Any) -> tuple[str, bool]:
    """What transformers answers, and whether it was cut before an EOS."""
    room = min(NEW_TOKENS, 256 - len(ids))
    with torch.no_grad():
        found = model.generate(
            torch.tensor([ids]), do_sample=False, max_new_tokens=room, eos_token_id=tokenizer.eos_token_id
        )[0, len(ids) :].tolist()
    text = tokenizer.decode(found, skip_special_tokens=True).rstrip("\ufffd")
    return text, tokenizer.eos_token_id not in found


@pytest.mark.vllm
@pytest.mark.long
def test_ref_logps_agree_with_transformers(tiny_model: Path, tokenizer: Any, grid_groups: Any, tmp_path: Path) -> None:
    groups = grid_groups(4)
    plain, adding = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    plain.chat_template = None
    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", adding.bos_token_id)]
    )
    for name, changed in (("plain", plain), ("adding", adding)):
        changed.save_pretrained(tmp_path / name)
        shutil.copy(tiny_model / "config.json", tmp_path / name)  # a tokenizer is one of a model's directory
    # The second is too long for the engine: rejected, and the others keep their places.
    long = replace(groups[1], responses=("river " * 300, "stone"))
    others = [(tmp_path / name, groups) for name in ("plain", "adding")]
    batches = [*cut_in_three_ways(groups, tiny_model), *others, (tiny_model, [groups[0], long, groups[2]])]
    prompts = [encode_prompt(group.prompts[0], tokenizer) for group in groups]
    prompts.append((*prompts[0], *prompts[1] * 20)[:250])  # with room for six tokens more
    results = score_in_process(batches, tiny_model, "ref_logps", tmp_path, prompts, chunked_prefill=True)
    found = assert_same_however_cut(results, "ref_logps", len(groups))
    module = PolicyLogps(load_policy(tiny_model, "float32"))
    answers = json.loads((tmp_path / "answers.json").read_text())
    # vLLM holds back the first bytes of a character that its last token does not finish.
    found_answers = [(text.rstrip("\ufffd"), cut) for text, cut in answers]
    assert found_answers == [greedy(module.model, ids, tokenizer) for ids in prompts]
    torch.testing.assert_close(found, torch.tensor(expected(groups, module, tokenizer)), rtol=0, atol=2e-3)
    values = {"model": {"name_or_path": str(tiny_model)}, "scoring": {"ref_logps_by": "trainer"}}
    trainers = TreeScorer(TreeOptions.of(parse_config(values, "test"), str(tiny_model), None))
    by_trees = [scored.to_row()["ref_logps"] for scored in score_groups(groups, trainers, "ref_logps")]
    torch.testing.assert_close(torch.tensor(by_trees), found, rtol=0, atol=1e-4)
    for rows, changed in zip(results[-3:-1], (plain, adding), strict=True):
        scores = torch.tensor([row["ref_logps"] for row in rows])
        torch.testing.assert_close(scores, torch.tensor(expected(groups, module, changed)), rtol=0, atol=2e-3)
    first, rejected, last = results[-1]
    assert rejected["stage"] == "score"
    assert "255" in rejected["reason"]
    torch.testing.assert_close(torch.tensor([first["ref_logps"], last["ref_logps"]]), found[[0, 2]])


@pytest.mark.vllm
@pytest.mark.long
def test_exported_reward_model_scores_the_same(
    tiny_model: Path,
    tokenizer: Any,
    grid_groups: Any,
    object_store: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = RewardScores(load_reward_model(tiny_model, "float32", seed=5))
    with torch.no_grad():  # a fresh head is close to zero; rewards should differ
        module.model.score.weight.mul_(20.0)
    export_model(module.model, tokenizer, None, tmp_path / "rm", "A test's model.")
    # Prompts of several cache blocks: what the sequences of a group share is read from the cache.
    groups = [with_long_prompts(group) for group in grid_groups(4)]
    batches = cut_in_three_ways(groups, tiny_model)
    monkeypatch.setenv("MAPL_CACHE", str(tmp_path / "cache"))
    uri = object_store.upload(tmp_path / "rm", "models/rm")  # an engine takes it from there
    results = score_in_process([*batches, batches[0]], uri, "rewards", tmp_path)
    cached = json.loads((tmp_path / "out.json").read_text())["cached"]
    # Of a group alone, five of six sequences take more than 128 tokens out of the cache; groups together begin alike.
    assert min(cached[1:5]) > 5 * 128
    assert cached[0] == cached[-1] > sum(cached[1:5])
    found = assert_same_however_cut(results, "rewards", len(groups))
    assert found.std() > 0.1
    assert results[-1] == results[0]  # to the last bit: the cache of an earlier batch plays no part
    torch.testing.assert_close(found, torch.tensor(expected(groups, module, tokenizer)), rtol=0, atol=1e-3)
    reloaded = RewardScores(load_reward_model(tmp_path / "rm", "float32"))
    torch.testing.assert_close(
        torch.tensor(expected(groups, reloaded, tokenizer)), torch.tensor(expected(groups, module, tokenizer))
    )


def with_long_prompts(group: RelationGroup) -> RelationGroup:
    """The same with some 160 tokens in front of every prompt."""
    start = "seven copper lamps in a winter garden " * 22
    prompts = tuple((Message("user", start + prompt[0].content),) for prompt in group.prompts)
    return replace(group, prompts=prompts)


class ConstantScorer:
    """Scores a sequence by its number of response tokens; a negative one is NaN."""

    max_tokens = 256

    def __init__(self, tokenizer: Any, bad: int = -1) -> None:
        self.tokenizer, self._bad = tokenizer, bad

    def score(self, token_ids: Any, starts: Any) -> list[float]:
        lengths = [float(len(ids) - start) for ids, start in zip(token_ids, starts, strict=True)]
        return [float("nan") if index == self._bad else value for index, value in enumerate(lengths)]


def test_every_sequence_gets_its_own_score(tokenizer: Any, grid_groups: Any) -> None:
    groups = grid_groups(3)
    for group, scored in zip(groups, score_groups(groups, ConstantScorer(tokenizer), "rewards"), strict=True):
        assert isinstance(scored, RelationGroup)
        lengths = [len(tokenizer.encode(text, add_special_tokens=False)) + 1.0 for text in group.responses]
        assert scored.rewards == tuple(lengths[s.response] for s in group.sequences)
        assert scored.ref_logps == group.ref_logps


def test_not_finite_is_rejected(tokenizer: Any, grid_groups: Any) -> None:
    first, second = score_groups(grid_groups(2), ConstantScorer(tokenizer, bad=7), "ref_logps")
    assert isinstance(first, RelationGroup)
    assert isinstance(second, Rejection)
    assert "finite" in second.reason


def test_an_engine_that_fails_on_one_token_ends_the_run(tokenizer: Any) -> None:
    class Broken(ConstantScorer):
        def score(self, token_ids: Prompts, starts: Sequence[int]) -> list[float]:
            raise ValueError("this model does not support classify\nlong story")

    try_engine(ConstantScorer(tokenizer), "org/rm")
    with pytest.raises(RunError, match="org/rm: the engine fails on a single token, so on any batch: ValueError: th"):
        try_engine(Broken(tokenizer), "org/rm")
