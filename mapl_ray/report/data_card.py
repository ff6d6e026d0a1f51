"""The groups' data card: `datasets.load_dataset(run_dir / "groups")` opens both splits by its header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mapl_ray.shards import Manifest, read_manifest, write_atomically

_COLUMNS = {
    "pair_id": "id of the original pair",
    "prompts": "messages of every prompt; the first is the original one",
    "instructions": "a list a prompt: name of the function, its arguments as JSON text, the wording",
    "responses": "chosen, rejected",
    "sequences": "(prompt, response) by index, and whether the response satisfies each instruction of the prompt",
    "relations": "level; preferred and dispreferred sequences by index: the rewards of the first should sum to more",
    "source": "file or data set that the pair is from",
    "margin": "the annotator's confidence, where there was one",
    "ref_logps": "log-probabilities under the reference policy, after scoring",
    "rewards": "rewards under a reward model, after scoring",
}


def build_data_card(run_dir: Path, config: dict[str, Any], seed: int) -> Path:
    """Write `run_dir/groups/README.md`; `config` is the synthesis section. Raises `UserError` without groups."""
    manifests = {split: read_manifest(run_dir / "groups" / split, verify=False) for split in ("train", "eval")}
    text = f"---\n{yaml.safe_dump(_header(run_dir, manifests), sort_keys=False)}---\n\n{_body(manifests, config, seed)}"
    path = run_dir / "groups" / "README.md"
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))
    return path


def _header(run_dir: Path, manifests: dict[str, Manifest]) -> dict[str, Any]:
    # A split without rows has Parquet files all the same, and `datasets` takes no split that is empty.
    files = [{"split": s, "path": f"{s}/part-*.parquet"} for s, manifest in manifests.items() if manifest.rows]
    return {
        "pretty_name": f"MAPL relation groups: {run_dir.name}",
        "tags": ["preference", "reward-model", "dpo", "instruction-following"],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _body(manifests: dict[str, Manifest], config: dict[str, Any], seed: int) -> str:
    lines = [
        "# Relation groups",
        "",
        "Preference pairs with instructions that one response satisfies and the other does not, made by mapl_ray "
        "(Multi-level Aware Preference Learning, arXiv 2505.12845). One row is one original pair; the texts are those "
        "of its source, whose licence holds for them.",
        "",
        "| split | rows | rejected | content |",
        "|---|---|---|---|",
    ]
    lines += [f"| {s} | {m.rows} | {m.rejected} | sha256 {m.content_hash[:16]} |" for s, m in manifests.items()]
    lines += ["", "| column | what it holds |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in _COLUMNS.items()]
    lines += ["", f"Made with seed {seed} and:", "", "```yaml", yaml.safe_dump(config, sort_keys=False).rstrip(), "```"]
    lines += ["", "Rows that could not be used are in `rejected-*.jsonl`, each with its reason.", ""]
    return "\n".join(lines)
