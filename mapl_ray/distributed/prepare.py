"""What every stage starts from: pairs in shards that do not depend on the order of the input, and a model."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mapl_ray.config import DataConfig, RunConfig
from mapl_ray.errors import UserError
from mapl_ray.models import build_tiny, check_model_directory
from mapl_ray.preferences import eval_split, read_pairs, source_files
from mapl_ray.records import (
    PAIR_SCHEMA,
    Judgement,
    PreferencePair,
    Rejection,
    canonical_json,
    messages_from_rows,
    messages_to_rows,
)
from mapl_ray.shards import Manifest, commit, fingerprint_of, finished, iter_rows, read_manifest, write_part

SPLITS = ("train", "eval")


def prepare_pairs(config: RunConfig) -> dict[str, Manifest]:
    """Read the source into `run_dir/pairs/{train,eval}`, skipped where it is there already.

    A pair's shard and place follow from its id alone, so every order of the input gives the same bytes. Rows that
    could not be used are counted with the train split; over both splits accepted + rejected = input rows.
    """
    fingerprint = _fingerprint(config)
    there = {split: finished(config.run_dir / "pairs" / split, fingerprint) for split in SPLITS}
    if all(there.values()):
        return {split: manifest for split, manifest in there.items() if manifest is not None}
    pairs, rejections = _read(config.data)
    if not pairs:
        shown = "; ".join(f"row {r.row}: {r.reason}" for r in rejections[:3])
        raise UserError(f"data.path={config.data.path!r}: no row of {len(rejections)} could be used ({shown}).")
    split_of: dict[str, list[PreferencePair]] = {"train": [], "eval": []}
    for pair in pairs:
        held_out = eval_split(pair, config.data.eval_fraction, config.seed)
        split_of["eval" if held_out else "train"].append(pair)
    if not split_of["train"]:
        raise UserError(
            f"data.path={config.data.path!r}: all {len(pairs)} pairs were held out. Lower data.eval_fraction."
        )
    return {
        split: _write(config, split, split_of[split], rejections if split == "train" else [], fingerprint)
        for split in SPLITS
    }


def resolve_model(config: RunConfig) -> str:
    """Directory or hub name of the base model; a tiny one is built from the train pairs if it is not there."""
    name = config.model.name_or_path
    if name != "tiny":
        check_model_directory(name)
        return str(Path(name).expanduser().resolve()) if Path(name).expanduser().is_dir() else name
    pairs = config.run_dir / "pairs" / "train"
    directory, mark = config.run_dir / "model", config.run_dir / "model.json"
    identity = {
        "pairs": read_manifest(pairs).content_hash,
        "tiny": config.model.tiny.model_dump(mode="json"),
        "seed": config.seed,
    }
    if not (directory.is_dir() and mark.is_file() and mark.read_text(encoding="utf-8") == canonical_json(identity)):
        shutil.rmtree(directory, ignore_errors=True)
        build_tiny(directory, _texts(pairs), config.model.tiny, config.seed)
        mark.write_text(canonical_json(identity), encoding="utf-8")
    return str(directory)


def pair_from_row(row: dict[str, Any]) -> PreferencePair:
    """The pair of a row in `PAIR_SCHEMA`."""
    judgements = tuple(Judgement(**judgement) for judgement in row["judgements"])
    return PreferencePair(**{**row, "prompt": messages_from_rows(row["prompt"]), "judgements": judgements})


def _read(config: DataConfig) -> tuple[list[PreferencePair], list[Rejection]]:
    """Pairs ordered by id, one an id; rejections in the order of the source."""
    pairs: list[PreferencePair] = []
    rejections: list[Rejection] = []
    for item in read_pairs(config):
        if isinstance(item, Rejection):
            rejections.append(item)
        else:
            pairs.append(item)
    # Of several pairs with one id the first by content stays, whatever the order of the input.
    pairs.sort(key=lambda pair: (pair.pair_id, canonical_json(_row(pair))))
    unique: list[PreferencePair] = []
    for pair in pairs:
        if unique and unique[-1].pair_id == pair.pair_id:
            reason = f"id {pair.pair_id!r} occurs more than once: expected one row an id; one of them was kept"
            rejections.append(Rejection(pair.source, -1, pair.pair_id, "read", reason))
        else:
            unique.append(pair)
    return unique, rejections


def _write(
    config: RunConfig, split: str, pairs: list[PreferencePair], rejections: list[Rejection], fingerprint: str
) -> Manifest:
    directory = config.run_dir / "pairs" / split
    number = max(1, -(-len(pairs) // config.synthesis.rows_per_shard))
    shards: list[list[dict[str, Any]]] = [[] for _ in range(number)]
    for pair in pairs:
        shards[int.from_bytes(hashlib.sha256(pair.pair_id.encode()).digest()[:8], "big") % number].append(_row(pair))
    parts = [
        write_part(directory, index, rows, rejections if index == 0 else [], PAIR_SCHEMA, fingerprint)
        for index, rows in enumerate(shards)
    ]
    return commit(directory, "prepare", fingerprint, parts)


def _row(pair: PreferencePair) -> dict[str, Any]:
    return {
        "pair_id": pair.pair_id,
        "prompt": messages_to_rows(pair.prompt),
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "source": pair.source,
        "margin": pair.margin,
        "judgements": [asdict(judgement) for judgement in pair.judgements],
    }


def _fingerprint(config: RunConfig) -> str:
    files = {}
    for file in source_files(config.data):
        with file.open("rb") as handle:
            files[file.name] = hashlib.file_digest(handle, "sha256").hexdigest()
    data = config.data.model_dump(mode="json", exclude={"path"} if files else None)
    return fingerprint_of(
        {
            "data": data,
            "files": files,
            "seed": config.seed,
            "rows_per_shard": config.synthesis.rows_per_shard,
            "columns": PAIR_SCHEMA.names,
        }
    )


def _texts(pairs: Path) -> Iterator[str]:
    for row in iter_rows(pairs):
        yield from (message["content"] for message in row["prompt"])
        yield row["chosen"]
        yield row["rejected"]
