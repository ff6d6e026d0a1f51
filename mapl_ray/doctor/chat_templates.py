"""`mapl doctor`: render the first rows of the data with the chat template of every model that a config names."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mapl_ray.config import DataConfig, RunConfig
from mapl_ray.data.records import PreferencePair
from mapl_ray.doctor.finding import Finding
from mapl_ray.errors import UserError
from mapl_ray.preferences import is_uri, read_pairs

_ROWS = 200


def check_chat_templates(config: RunConfig) -> Iterator[Finding]:
    """One finding per model in a local directory; none if the data are not local or can't be read."""
    models = _models(config)
    pairs = _first_pairs(config) if models else []
    if not pairs:
        return
    from mapl_ray.models import TemplateCheck, load_tokenizer  # torch takes seconds

    for key, path, revision in models:
        try:
            check = TemplateCheck(load_tokenizer(path, revision))
        except UserError:
            continue  # reported by the finding about the model
        reasons = [(pair, reason) for pair in pairs if (reason := check(pair)) is not None]
        if not reasons:
            yield Finding("ok", "chat template", f"{key}={path} accepts the first {len(pairs)} pairs of the data")
            continue
        pair, reason = reasons[0]
        detail = f"{key}={path} refuses {len(reasons)} of the first {len(pairs)} pairs; {pair.pair_id}: {reason}"
        if len(reasons) == len(pairs):
            yield Finding("fail", "chat template", detail, "name another model, or edit its template")
        else:
            yield Finding("warn", "chat template", detail, "these pairs will be rejected, with the reason")


def _models(config: RunConfig) -> list[tuple[str, str, str | None]]:
    scoring, model = config.scoring, config.model
    named = (
        ("model.name_or_path", model.name_or_path, model.revision),
        ("scoring.ref_model", scoring.ref_model, scoring.ref_model_revision),
        ("scoring.reward_model", scoring.reward_model, scoring.reward_model_revision),
        ("scoring.pair_reward_model", scoring.pair_reward_model, None),
    )
    return [(key, path, revision) for key, path, revision in named if path is not None and Path(path).is_dir()]


def _first_pairs(config: RunConfig) -> list[PreferencePair]:
    pairs: list[PreferencePair] = []
    for part in config.data.parts():
        if _is_here(part):
            try:
                found = islice(read_pairs(part, config.seed), _ROWS)
                pairs += [one for one in found if isinstance(one, PreferencePair)]
            except UserError:
                continue  # reported by the finding about the data
    return pairs


def _is_here(part: DataConfig) -> bool:
    return part.path == "demo" or (not is_uri(part.path) and Path(part.path).exists())
