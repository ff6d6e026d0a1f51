"""Generate policies' responses to the prompts of IFEval and IFBench: one Ray task with a vLLM engine per policy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

from mapl_ray.batches import CURE, RenderError, encode_prompt
from mapl_ray.config import RunConfig
from mapl_ray.data.records import Message
from mapl_ray.data.shards import write_atomically
from mapl_ray.distributed.resources import check_stage
from mapl_ray.distributed.runtime import available_resources
from mapl_ray.errors import RunError, UserError
from mapl_ray.evaluation.checkpoints import Checkpoint
from mapl_ray.evaluation.following import FollowRow
from mapl_ray.evaluation.public_sets import PublicSet
from mapl_ray.models import load_tokenizer
from mapl_ray.scoring import EngineOptions


@dataclass(frozen=True, slots=True)
class PolicyAnswers:
    """The responses of one policy to one set."""

    rows: list[FollowRow]  # those whose prompt fits every policy
    responses: list[str]  # one per row
    cut: int  # number of responses that reached max_new_tokens


def answer_prompts(
    config: RunConfig, policies: Sequence[Checkpoint], sets: Sequence[PublicSet]
) -> dict[str, dict[str, PolicyAnswers]]:
    """Generate the answers, by set and policy, and write them to `run_dir/evaluation`.

    Raises `UserError` if there are prompts but no policy, or no room for an engine; `RunError` if an engine fails.
    """
    if not sets:
        return {}
    if not policies:
        raise UserError(
            f"evaluation.sets.{sets[0].name}: IFEval and IFBench need a policy, and none is evaluated. Name one "
            "(--models, evaluation.models), or leave the set out."
        )
    check_stage("score", config, available_resources())  # the engines have the size of scoring's
    prompts = {policy.name: _prompts(policy, sets) for policy in policies}
    most = config.scoring.max_model_len - 1
    fits = [
        [
            all(len(prompts[policy.name][number][row]) <= most for policy in policies)
            for row in range(len(one.following))
        ]
        for number, one in enumerate(sets)
    ]
    waiting = {}
    for policy in policies:
        wanted = [ids for some, of_set in zip(prompts[policy.name], fits, strict=True) for ids in _kept(some, of_set)]
        waiting[policy.name] = _start(config, policy, wanted)
    answers: dict[str, dict[str, PolicyAnswers]] = {one.name: {} for one in sets}
    for name, task in waiting.items():
        left = iter(_finished(task, name))
        for one, of_set in zip(sets, fits, strict=True):
            rows = _kept(one.following, of_set)
            given = [next(left) for _ in rows]
            found = PolicyAnswers(rows, [text for text, _ in given], sum(cut for _, cut in given))
            answers[one.name][name] = found
            _write(config.run_dir / "evaluation" / f"{one.name}-{name.replace('/', '--')}.jsonl", found)
        print(f"  {name}: {sum(map(sum, fits))} responses", flush=True)
    return answers


def _prompts(policy: Checkpoint, sets: Sequence[PublicSet]) -> list[list[tuple[int, ...]]]:
    tokenizer = load_tokenizer(policy.path, policy.revision)
    try:
        return [[encode_prompt((Message("user", row.prompt),), tokenizer) for row in one.following] for one in sets]
    except RenderError as error:
        raise UserError(f"policy {policy.name}: {error}. {CURE}.") from None


def _kept(items: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    return [item for item, flag in zip(items, flags, strict=True) if flag]


def _start(config: RunConfig, policy: Checkpoint, prompts: list[tuple[int, ...]]) -> Any:
    scoring = config.scoring
    options = EngineOptions.of(scoring, policy.path, policy.revision, config.engine_dtype, config.seed)
    # max_calls=1: an engine holds its memory until its process ends.
    task = ray.remote(num_cpus=scoring.cpus_per_engine, num_gpus=scoring.gpus_per_engine, max_calls=1, max_retries=1)(
        _responses
    )
    return task.remote(asdict(options), prompts, config.evaluation.max_new_tokens)


def _responses(options: dict[str, Any], prompts: list[tuple[int, ...]], max_new_tokens: int) -> list[tuple[str, bool]]:
    from mapl_ray.scoring.engine import Generator

    return Generator(EngineOptions(**options)).generate(prompts, max_new_tokens)


def _finished(task: Any, name: str) -> list[tuple[str, bool]]:
    try:
        found: list[tuple[str, bool]] = ray.get(task)
        return found
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, UserError | RunError) else RunError(f"policy {name}: {cause}") from None


def _write(path: Path, answers: PolicyAnswers) -> None:
    """Write the answers in the format of the public scripts: prompt and response, and the key for readers."""
    lines = [
        json.dumps({"key": row.key, "prompt": row.prompt, "response": response}, ensure_ascii=False) + "\n"
        for row, response in zip(answers.rows, answers.responses, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda aside: aside.write_text("".join(lines), encoding="utf-8"))
