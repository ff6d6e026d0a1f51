"""Answers to prompts of the held-out groups, before and after DPO: by the policies, and by the model they began with.

    evaluation/groups/held-out               -> evaluation/rows/own-prompts    the groups whose prompts are answered
    evaluation/rows/own-prompts              -> evaluation/answers/MODEL       a part per part: `answer_actor.py`

A model whose answers can't be had is left out with a message, and the evaluation goes on.
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

BEFORE = "before DPO"  # name of the model that DPO began with, where it is not evaluated under its own
_FOLDER = "own-prompts"
_PART = 64  # prompts in one part
_COLUMNS = ("pair_id", "instructions", "prompt_kinds")
_TINY = (
    "The tiny model is built on the spot: its answers are noise, and what they meet they meet by chance. "
    "For answers in English: --model smollm2-135m"
)
_FOUR_BITS = "The weights of SmolLM2-135M are 4-bit ones made wide again: the published model answers a little better"


@dataclass(slots=True)
class Asked:
    """The models that are to answer."""

    policies: list[Checkpoint]  # the one that DPO began with first, where it was added
    before: str | None = None  # its name; None: it can't be had
    left_out: dict[str, str] = field(default_factory=dict)  # model -> why

    def leave_out(self, name: str, reason: str) -> None:
        """Go on without a model, and say so."""
        self.policies = [policy for policy in self.policies if policy.name != name]
        self.left_out[name] = reason
        print(f"  own prompts: no answers by {name}: {reason}", flush=True)


def asked_models(config: RunConfig, models: Sequence[Checkpoint]) -> Asked | None:
    """The policies among `models` and the model that DPO began with, once; None where nothing is to be answered."""
    if not config.evaluation.own_prompts:
        return None
    policies = [model for model in models if model.method == "dpo"]
    if not policies:
        print("  own prompts: no policy is evaluated, so nobody answers them", flush=True)
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
    """Have the prompts answered; results, and the content hash of the groups as `{"own prompts": ...}`. Nothing where
    nobody is asked, or no prompt can be used, which is printed.

    `pairs` are (model, baseline) to be compared. Raises `UserError` where the cluster has no room for an engine.
    """
    if asked is None:
        return None, {}
    groups = [] if held_out is None else _usable(config, asked, held_out)
    if not groups:
        print(
            "  own prompts: no held-out prompt has an instruction that can be checked and room in the models",
            flush=True,
        )
        return None, {}
    check_stage("score", config, available_resources())  # engines of the size that scoring has
    source = config.run_dir / "evaluation" / "rows" / _FOLDER
    digest = fingerprint_of([group.to_row() for group in groups])
    manifest = finished(source, digest) or write_groups(source, groups, digest, _PART)
    made = sum(_answer(config, asked, some, source) for some in _at_once(config, asked.policies))
    answers = {policy.name: _read(_target(config, policy), groups) for policy in asked.policies}
    work = f"{made} parts made" if made else "already there"
    print(f"  own prompts: {len(groups)} answered by {', '.join(answers) or 'nobody'}; {work}", flush=True)
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
    """The model that DPO began with. Raises `UserError` where it can't answer like its policies do."""
    path, revision = resolve_model(config), config.model.revision
    verify_model(path, "policy", revision)
    if load_tokenizer(path, revision).chat_template is None:
        raise UserError(
            f"{path} has no chat template, so it was not made for conversations. Put a chat_template.jinja beside its "
            "tokenizer to have its answers, too."
        )
    return Checkpoint(BEFORE, path, revision, "dpo")


def _usable(config: RunConfig, asked: Asked, held_out: EvaluationGroups) -> list[RelationGroup]:
    """The groups whose prompts every model takes, `evaluation.own_prompts` at the most."""
    ranked: list[tuple[tuple[bool, str], int]] = []
    first = 0
    for table in held_out.tables(columns=_COLUMNS):
        rows = table.select(_COLUMNS).to_pylist()
        ranked += [(rank, first + index) for rank, index in candidates(rows, config.seed)]
        first += len(rows)
    order = [index for _, index in sorted(ranked)]
    found = _fitting(config, asked.policies, held_out, order)
    if not found and asked.before == BEFORE and order:
        asked.leave_out(BEFORE, "its chat template takes none of the prompts, or they are too long for it")
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
    # Scores are not part of what is asked: other ones must not have everything answered again.
    return [replace(group, ref_logps=None, rewards=None) for group in found[:number]]


def _fits(group: RelationGroup, tokenizer: Any, most: int) -> bool:
    try:
        return len(encode_prompt(group.prompts[asked_prompt(group)], tokenizer)) <= most
    except RenderError:
        return False


def _at_once(config: RunConfig, policies: Sequence[Checkpoint]) -> list[list[Checkpoint]]:
    """Policies that share actors. On a GPU, or with ranks of its own, an engine needs a process of its own."""
    alone = config.scoring.gpus_per_engine or config.scoring.tensor_parallel_size > 1
    return [[policy] for policy in policies] if alone else [list(policies)]


def _answer(config: RunConfig, asked: Asked, policies: Sequence[Checkpoint], source: Path) -> int:
    """Number of parts that were made. A policy that fails is left out; the others of its actors go on without it."""
    scoring, limit = config.scoring, config.evaluation.max_new_tokens
    options = [EngineOptions.of(scoring, p.path, p.revision, config.engine_dtype, config.seed) for p in policies]
    stages = [
        Stage("answers", source, _target(config, policy), _recipe(one, limit), cache=True)
        for policy, one in zip(policies, options, strict=True)
    ]
    try:
        done = run_stages(stages, lambda shards: on_generators(shards, stages, options, limit, scoring))
    except (UserError, RunError) as error:
        if len(policies) > 1:
            return sum(_answer(config, asked, [policy], source) for policy in policies)
        asked.leave_out(policies[0].name, str(error))
        return 0
    return sum(made for _, made in done)


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
        raise RunError(f"{folder}: not answers to these groups. Delete it and run the stage again.")
    return [Answer(row["answer"], row["cut"]) for row in rows]


def _notes(config: RunConfig) -> list[str]:
    name = config.model.name_or_path
    if name == "tiny":
        return [_TINY]
    return [_FOUR_BITS] if Path(name).name.startswith(SMOLLM2) else []
