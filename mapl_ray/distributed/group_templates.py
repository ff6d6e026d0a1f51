"""Try chat templates on existing groups, so that a run whose model can render none of them ends before it starts."""

from __future__ import annotations

from pathlib import Path

from mapl_ray.config import RunConfig
from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import fingerprint_of, iter_rows
from mapl_ray.errors import UserError
from mapl_ray.evaluation.checkpoints import named_checkpoints
from mapl_ray.models import TemplateCheck, check_rendering, load_tokenizer

Named = tuple[str, str, str | None]  # config key of a model, its path, its revision


def check_templates(config: RunConfig, stage: str) -> None:
    """Render the first groups with the chat template of every model that the stage uses, if there are groups yet.

    Raises `UserError` if a template can render none of them. If it renders some, the others are rejected later.
    """
    folder = _groups(config)
    if folder is not None:
        for what, path, revision in _models(config, stage):
            check_rendering(map(RelationGroup.from_row, iter_rows(folder)), path, revision, what)


def template_check(config: RunConfig) -> TemplateCheck | None:
    """The chat template check for every pair that is read; None for a tiny model, whose template renders any pair, and,
    with a printed line, for a model whose tokenizer can't be loaded here."""
    name = config.model.name_or_path
    if name == "tiny":
        return None
    try:
        return TemplateCheck(load_tokenizer(name, config.model.revision))
    except UserError as error:
        print(f"  model.name_or_path={name}: its chat template is not checked on the pairs: {error}", flush=True)
        return None


def template_digest(config: RunConfig) -> str | None:
    """Fingerprint of the chat template, which decides which pairs are accepted; None where `template_check` is None."""
    try:
        name = config.model.name_or_path
        return None if name == "tiny" else fingerprint_of(load_tokenizer(name, config.model.revision).chat_template)
    except UserError:
        return None


def _groups(config: RunConfig) -> Path | None:
    folders = [config.data_dir / kind / "train" for kind in ("scored", "groups")]
    return next((folder for folder in folders if (folder / "manifest.json").is_file()), None)


def _models(config: RunConfig, stage: str) -> list[Named]:
    scoring = config.scoring
    named: list[tuple[str, str | None, str | None]] = []
    if stage == "score":
        if scoring.ref_logps:
            ref = (scoring.ref_model, scoring.ref_model_revision)
            named.append(("scoring.ref_model=", *ref) if ref[0] else _policy(config))
        named.append(("scoring.reward_model=", scoring.reward_model, scoring.reward_model_revision))
    elif stage.startswith("train") or stage == "tune":
        named.append(_policy(config))
    elif stage == "evaluate":
        named += [
            ("evaluation.models: ", one.path, one.revision) for one in named_checkpoints(config.evaluation.models)
        ]
    return [(what, path, revision) for what, path, revision in named if path is not None and path != "tiny"]


def _policy(config: RunConfig) -> tuple[str, str | None, str | None]:
    return "model.name_or_path=", config.model.name_or_path, config.model.revision
