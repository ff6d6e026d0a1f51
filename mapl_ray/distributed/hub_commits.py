"""Resolve hub branches to commits when a run first names them, and keep these commits for the run.

`main` moves. Without this a rerun would resume a checkpoint with other base weights under its adapter, and nodes that
start at other times would load other models. Commits are in `hub_commits.json` of the run's folder; those of
`data_run` take precedence, so that scores and training use the same model.
"""

from __future__ import annotations

import json
from pathlib import Path

from mapl_ray.aside import set_aside
from mapl_ray.config import RunConfig
from mapl_ray.data.shards import write_json
from mapl_ray.evaluation.checkpoints import split_revision
from mapl_ray.hub_models import HubUnreachableError, hub_commit, is_commit, is_hub_name
from mapl_ray.lease import lease, lease_path

FILE = "hub_commits.json"
_PATIENCE_SECONDS = 60.0


def with_commits(config: RunConfig) -> RunConfig:
    """The config with a commit as the revision of every hub model that it names.

    If the hub can't be reached, a model keeps its revision and a line is printed. Raises `UserError` for a model or
    revision that the hub does not have.
    """
    named = {(name, revision or "main") for name, revision in _named(config) if is_hub_name(name)}
    moving = sorted(one for one in named if not is_commit(one[1]))
    if not moving:
        return config
    with lease(lease_path(config.run_dir, "hub_commits"), patience_seconds=_PATIENCE_SECONDS):
        own = _read(config.run_dir / FILE)
        kept = own | (_read(config.data_dir / FILE) if config.data_dir != config.run_dir else {})
        for name, revision in moving:
            if (key := f"{name}@{revision}") not in kept:
                try:
                    kept[key] = hub_commit(name, revision)
                except HubUnreachableError as error:
                    print(f"  {key}: not resolved to a commit, each node loads its own copy: {error}", flush=True)
        if kept != own:
            write_json(config.run_dir / FILE, kept)
    return _resolved(config, kept)


def _named(config: RunConfig) -> list[tuple[str, str | None]]:
    scoring, evaluation = config.scoring, config.evaluation
    texts = [*evaluation.models, *([evaluation.reference] if evaluation.reference is not None else [])]
    named = [
        (config.model.name_or_path, config.model.revision),
        (scoring.ref_model, scoring.ref_model_revision),
        (scoring.reward_model, scoring.reward_model_revision),
        (scoring.pair_reward_model, scoring.pair_reward_model_revision),
        (scoring.judge.model, scoring.judge.revision),
        *map(split_revision, texts),
    ]
    return [(name, revision) for name, revision in named if name not in (None, "tiny", "policy")]


def _resolved(config: RunConfig, commits: dict[str, str]) -> RunConfig:
    def of(name: str | None, revision: str | None) -> str | None:
        return commits.get(f"{name}@{revision or 'main'}", revision)

    def text(given: str) -> str:
        name, revision = split_revision(given)
        commit = of(name, revision)
        return f"{name}@{commit}" if commit is not None else given

    scoring, evaluation = config.scoring, config.evaluation
    judge = scoring.judge.model_copy(update={"revision": of(scoring.judge.model, scoring.judge.revision)})
    revisions = {
        "ref_model_revision": of(scoring.ref_model, scoring.ref_model_revision),
        "reward_model_revision": of(scoring.reward_model, scoring.reward_model_revision),
        "pair_reward_model_revision": of(scoring.pair_reward_model, scoring.pair_reward_model_revision),
    }
    model = config.model.model_copy(update={"revision": of(config.model.name_or_path, config.model.revision)})
    evaluated = {
        "models": type(evaluation.models)(map(text, evaluation.models)),
        "reference": None if evaluation.reference is None else text(evaluation.reference),
    }
    return config.model_copy(
        update={
            "model": model,
            "scoring": scoring.model_copy(update={"judge": judge, **revisions}),
            "evaluation": evaluation.model_copy(update=evaluated),
        }
    )


def _read(path: Path) -> dict[str, str]:
    """Read the commits. A damaged file is set aside; stages compare the new commits with those that they used."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and all(isinstance(one, str) and is_commit(one) for one in values.values()):
            return values
    except FileNotFoundError:
        return {}
    except ValueError:
        pass
    set_aside(path, "damaged")
    return {}
