"""The data card of the groups. With its header, `datasets.load_dataset(run_dir / "groups")` loads both splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from mapl_ray.config import SynthesisConfig
from mapl_ray.data.shards import Manifest, read_manifest, read_table, write_atomically
from mapl_ray.report.data_stats import value_counts
from mapl_ray.synthesis import module_digests

_COLUMNS = {
    "pair_id": "id of the original pair",
    "prompts": "messages of every prompt; the first is the original one",
    "instructions": "one list per prompt: name of the function, its arguments as JSON, the text",
    "responses": "chosen, rejected",
    "sequences": "(prompt, response) by index, and whether the response satisfies each instruction of the prompt",
    "relations": "level; preferred and dispreferred sequences by index: preferred rewards should have the larger sum",
    "source": "file or data set of the pair",
    "margin": "the margin of the original pair, or a reward model's margin if the run fills it; may be null",
    "ref_logps": "log-probabilities under the reference policy, after scoring",
    "rewards": "rewards under a reward model, after scoring",
    "tool_fields": "tool calls, tool results and tools of the conversation, as JSON; may be null",
}


def build_data_card(run_dir: Path, config: SynthesisConfig, seed: int) -> Path:
    """Write `run_dir/groups/README.md`. Raises `UserError` if groups or pairs are not finished."""
    manifests = {split: read_manifest(run_dir / "groups" / split, verify=False) for split in ("train", "eval")}
    header = yaml.safe_dump(_header(run_dir, manifests), sort_keys=False)
    text = f"---\n{header}---\n\n{_body(run_dir, manifests, config, seed)}"
    path = run_dir / "groups" / "README.md"
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))
    return path


def _header(run_dir: Path, manifests: dict[str, Manifest]) -> dict[str, Any]:
    # A split without rows still has Parquet files, and `datasets` rejects an empty split.
    files = [{"split": s, "path": f"{s}/part-*.parquet"} for s, manifest in manifests.items() if manifest.rows]
    return {
        "pretty_name": f"MAPL relation groups: {run_dir.name}",
        "tags": ["preference", "reward-model", "dpo", "instruction-following"],
        "size_categories": [_size(sum(manifest.rows for manifest in manifests.values()))],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _size(rows: int) -> str:
    """The hub's name of a size category."""
    steps = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for limit, name in steps.items() if rows < limit), "1M<n<10M" if rows < 10**7 else "n>10M")


def _body(run_dir: Path, manifests: dict[str, Manifest], config: SynthesisConfig, seed: int) -> str:
    pairs = {split: read_manifest(run_dir / "pairs" / split, verify=False) for split in manifests}
    # A module's name and digest identify it; the card does not show local paths.
    digests = module_digests(config.modules)
    modules = {Path(m).name: f"sha256 {digest}" for m, digest in zip(config.modules, digests, strict=True)}
    values = config.model_dump(mode="json") | {"modules": modules}
    lines = [
        "# Relation groups",
        "",
        "Preference pairs with instructions that one response satisfies and the other does not, made by mapl_ray "
        "(Multi-level Aware Preference Learning, arXiv 2505.12845). One row is one original pair. The license of its "
        "source applies to its texts.",
        "",
        "| split | rows | rejected | content | pairs | content of pairs |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {s} | {m.rows} | {m.rejected} | {m.content_hash[:16]} | {pairs[s].rows} | {pairs[s].content_hash[:16]} |"
        for s, m in manifests.items()
    ]
    lines += [
        "",
        "The content columns show the first digits of a sha256 over the Parquet files.",
        "",
        "| source | rows |",
        "|---|---|",
    ]
    lines += [f"| {name} | {rows} |" for name, rows in _sources(run_dir, manifests).most_common()]
    lines += ["", "| column | content |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in _COLUMNS.items()]
    lines += ["", f"Made with seed {seed} and:", "", "```yaml", yaml.safe_dump(values, sort_keys=False).rstrip(), "```"]
    lines += ["", "Rows that could not be used are in `rejected-*.jsonl`, each with its reason.", ""]
    return "\n".join(lines)


def _sources(run_dir: Path, manifests: dict[str, Manifest]) -> Counter[str]:
    """Number of rows per source; a path is shortened to its last part."""
    counts: Counter[str] = Counter()
    for split, manifest in manifests.items():
        for part in manifest.parts:
            column = read_table(run_dir / "groups" / split, part, ["source"]).column("source")
            for name, rows in value_counts(column).items():
                counts[PurePosixPath(name).name] += rows
    return counts
