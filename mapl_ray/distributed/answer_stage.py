"""Generate answers to held-out prompts before and after DPO: with the policies, and with the model they started from.

    evaluation/groups/held-out               -> evaluation/rows/own-prompts    the groups whose prompts are answered
    evaluation/rows/own-prompts              -> evaluation/answers/MODEL       part by part: `answer_actor.py`

A model that can't answer is left out with a message, and the evaluation continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mapl_ray.batches import ENCODING, RenderError, encode_prompt
from mapl_ray.config import RunConfig
from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import fingerprint_of, finished, iter_rows
from mapl_ray.distributed.answer_actor import on_generators
from mapl_ray.distributed.evaluation_groups import EvaluationGroups, write_groups
from mapl_ray.distributed.prepare import resolve_model
from mapl_ray.distributed.resources import check_stage
from mapl_ray.distributed.runtime import available_resources
from mapl_ray.distributed.shard_tasks import Stage, run_stages
from mapl_ray.errors import RunError, UserError
from mapl_ray.evaluation.checkpoints import Checkpoint
from mapl_ray.evaluation.own_prompts import asked_prompt, candidates
from mapl_ray.evaluation.own_results import Answer, OwnResults, own_results
from mapl_ray.models import SMOLLM2, load_tokenizer, model_identity, verify_model
from mapl_ray.scoring import EngineOptions

BEFORE = "before DPO"  # name of the model that DPO started from, unless it is evaluated under its own name
_FOLDER = "own-prompts"
_PART = 64  # prompts in one part
_COLUMNS = ("pair_id", "instructions", "prompt_kinds")
_TINY = (
    "The tiny model starts from random weights: its answers are noise and follow instructions only by chance. "
    "For answers in English: --model smollm2-135m"
)
_FOUR_BITS = "The weights of SmolLM2-135M are dequantized from 4 bits: the published model answers slightly better"


@dataclass(slots=True)
class Asked:
    """The models that answer the prompts."""

    policies: list[Checkpoint]  # if the model that DPO started from was added, it comes first
    before: str | None = None  # name of that model; None: not available
    left_out: dict[str, str] = field(default_factory=dict)  # model -> reason

    def leave_out(self, name: str, reason: str) -> None:
        """Remove a model, record the reason, and print it."""
        self.policies = [policy for policy in self.policies if policy.name != name]
        self.left_out[name] = reason
        print(f"  own prompts: no answers by {name}: {reason}", flush=True)


def asked_models(config: RunConfig, models: Sequence[Checkpoint]) -> Asked | None:
    """The policies in `models` and the model that DPO started from, without duplicates; None if nothing is to be
    answered."""
    if not config.evaluation.own_prompts:
        return None
    policies = [model for model in models if model.method == "dpo"]
    if not policies:
        print("  own prompts: skipped, because no policy is evaluated", flush=True)
        return None
    asked = Asked(policies)
    try:
        base = _base(config)
    except UserError as error:
        asked.leave_out(BEFORE, str(error))
        return asked
    identity = model_identity(base.path, base.revision)
    same = (policy for policy in policies if model_identity(policy.path, policy.revision) == identity)
    if (found := next(same, None)) is not None:
        asked.before = found.name
    else:
        asked.policies, asked.before = [base, *policies], base.name
    return asked


def answer_own_prompts(
    config: RunConfig, asked: Asked | None, held_out: EvaluationGroups | None, pairs: Sequence[tuple[str, str]]
) -> tuple[OwnResults | None, dict[str, str]]:
    """Generate the answers; returns the results, and the content hash of the groups as `{"own prompts": ...}`. Returns
    (None, {}) if `asked` is None or no prompt can be used; the latter is printed.

    `pairs` are the (model, baseline) pairs to compare. Raises `UserError` if the cluster has no room for an engine.
    """
    if asked is None:
        return None, {}
    groups = [] if held_out is None else _usable(config, asked, held_out)
    if not groups:
        print(
            "  own prompts: skipped, because no held-out prompt has a checkable instruction and fits the models",
            flush=True,
        )
        return None, {}
    check_stage("score", config, available_resources())  # the engines have the size of scoring's
    source = config.run_dir / "evaluation" / "rows" / _FOLDER
    digest = fingerprint_of([group.to_row() for group in groups])
    manifest = finished(source, digest) or write_groups(source, groups, digest, _PART)
    before = _parts(config, asked.policies)
    for some in _at_once(config, asked.policies):
        _answer(config, asked, some, source)
    made = len(_parts(config, asked.policies) - before)
    answers = {policy.name: _read(_target(config, policy), groups) for policy in asked.policies}
    work = f"{made} parts made" if made else "already there"
    print(f"  own prompts: {len(groups)} answered by {', '.join(answers) or 'no model'}; {work}", flush=True)
    results = own_results(
        groups,
        answers,
        pairs,
        before=asked.before,
        max_new_tokens=config.evaluation.max_new_tokens,
        left_out=asked.left_out,
        notes=_notes(config),
        samples=config.evaluation.bootstrap_samples,
        seed=config.seed,
    )
    return results, {"own prompts": manifest.content_hash}


def _base(config: RunConfig) -> Checkpoint:
    """The model that DPO started from. Raises `UserError` if it is not a policy with a chat template."""
    path, revision = resolve_model(config), config.model.revision
    verify_model(path, "policy", revision)
    if load_tokenizer(path, revision).chat_template is None:
        raise UserError(
            f"{path} has no chat template, so it can't answer prompts. Add a chat_template.jinja next to its "
            "tokenizer to include its answers."
        )
    return Checkpoint(BEFORE, path, revision, "dpo")


def _usable(config: RunConfig, asked: Asked, held_out: EvaluationGroups) -> list[RelationGroup]:
    """Groups whose prompts every model can render and fit, at most `evaluation.own_prompts`."""
    ranked: list[tuple[tuple[bool, str], int]] = []
    first = 0
    for table in held_out.tables(columns=_COLUMNS):
        rows = table.select(_COLUMNS).to_pylist()
        ranked += [(rank, first + index) for rank, index in candidates(rows, config.seed)]
        first += len(rows)
    order = [index for _, index in sorted(ranked)]
    found = _fitting(config, asked.policies, held_out, order)
    if not found and asked.before == BEFORE and order:
        asked.leave_out(BEFORE, "its chat template can't render any of the prompts, or they are too long for it")
        found = _fitting(config, asked.policies, held_out, order)
    return found


def _fitting(
    config: RunConfig, policies: Sequence[Checkpoint], held_out: EvaluationGroups, order: Sequence[int]
) -> list[RelationGroup]:
    tokenizers = [load_tokenizer(policy.path, policy.revision) for policy in policies]
    number, most = config.evaluation.own_prompts, config.scoring.max_model_len - 1
    found: list[RelationGroup] = []
    left = iter(order)
    while len(found) < number and (some := list(islice(left, number))):
        groups = map(RelationGroup.from_row, held_out.rows(some))
        found += [group for group in groups if all(_fits(group, one, most) for one in tokenizers)]
    # Scores are dropped, so that new scores don't trigger new answers.
    return [replace(group, ref_logps=None, rewards=None) for group in found[:number]]


def _fits(group: RelationGroup, tokenizer: Any, most: int) -> bool:
    try:
        return len(encode_prompt(group.prompts[asked_prompt(group)], tokenizer)) <= most
    except RenderError:
        return False


def _at_once(config: RunConfig, policies: Sequence[Checkpoint]) -> list[list[Checkpoint]]:
    """Policies grouped by shared actors. On GPUs or with tensor parallelism each engine needs a separate process."""
    alone = config.scoring.gpus_per_engine or config.scoring.tensor_parallel_size > 1
    return [[policy] for policy in policies] if alone else [list(policies)]


def _parts(config: RunConfig, policies: Sequence[Checkpoint]) -> set[tuple[Path, int]]:
    """Path and modification time, in nanoseconds, of every part of these policies' answers."""
    paths = [path for policy in policies for path in _target(config, policy).glob("part-*.parquet")]
    return {(path, path.stat().st_mtime_ns) for path in paths}


def _answer(config: RunConfig, asked: Asked, policies: Sequence[Checkpoint], source: Path) -> None:
    """Generate the answers of policies that share actors. A policy that fails is left out, and the others are run
    without it."""
    scoring, limit = config.scoring, config.evaluation.max_new_tokens
    options = [EngineOptions.of(scoring, p.path, p.revision, config.engine_dtype, config.seed) for p in policies]
    stages = [
        Stage("answers", source, _target(config, policy), _recipe(one, limit), cache=True)
        for policy, one in zip(policies, options, strict=True)
    ]
    try:
        run_stages(stages, lambda shards: on_generators(shards, stages, options, limit, scoring))
    except (UserError, RunError) as error:
        if len(policies) == 1:
            asked.leave_out(policies[0].name, str(error))
            return
        for policy in policies:
            _answer(config, asked, [policy], source)


def _recipe(options: EngineOptions, max_new_tokens: int) -> str:
    return fingerprint_of(
        {
            "model": model_identity(options.model, options.revision),
            "dtype": options.dtype,
            "max_model_len": options.max_model_len,
            "max_new_tokens": max_new_tokens,
            "encoding": ENCODING,
        }
    )


def _target(config: RunConfig, policy: Checkpoint) -> Path:
    name = policy.name.replace("/", "--").replace(" ", "-")
    return config.run_dir / "evaluation" / "answers" / name


def _read(folder: Path, groups: Sequence[RelationGroup]) -> list[Answer]:
    rows = list(iter_rows(folder))
    if [row["pair_id"] for row in rows] != [group.pair_id for group in groups]:
        raise RunError(f"{folder}: these answers belong to other groups. Delete the folder and run the stage again.")
    return [Answer(row["answer"], row["cut"]) for row in rows]


def _notes(config: RunConfig) -> list[str]:
    name = config.model.name_or_path
    if name == "tiny":
        return [_TINY]
    return [_FOUR_BITS] if Path(name).name.startswith(SMOLLM2) else []
