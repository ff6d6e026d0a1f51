"""Generate docs/evidence.md and its plots, with all numbers from the summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from benchmarks.evidence import tables
from benchmarks.evidence.experiment import MAIN, THREE, UNSEEN
from benchmarks.evidence.findings import disappointments, targets_table
from benchmarks.evidence.plots import write_plots
from mapl_ray.data.shards import write_atomically

_TEMPLATE = Path(__file__).with_name("template.md")
_NOT_RUN = "(not run)"


def write_document(summary: Mapping[str, Any], path: Path) -> None:
    """Write the document, and next to it a folder with the same name that has the plots and `summary.json`."""
    folder = path.with_suffix("")
    plots = write_plots(summary, MAIN, THREE, folder)
    compact = json.dumps(summary, separators=(",", ":"), ensure_ascii=False, default=str) + "\n"
    write_atomically(folder / "summary.json", lambda aside: aside.write_text(compact, encoding="utf-8"))
    images = {name: f"![{alt}]({folder.name}/{file})" for name, (file, alt) in plots.items()}
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    values = {**_facts(summary), **_tables(summary), **_images(images)}
    text = template.substitute({name: value or _NOT_RUN for name, value in values.items()})
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def _facts(summary: Mapping[str, Any]) -> dict[str, str]:
    counts, scale, warm = summary["pairs"], summary["scale"], summary["warm_start"]
    records = sorted(summary["provenance"], key=lambda record: record["date"])
    first, last = records[0], records[-1]
    machine, versions = first["machine"], first["versions"]
    wall = warm["wall_seconds"] + sum(sum(arm["wall_seconds"]) for arm in summary["arms"].values())
    cpu = sum(sum(arm["cpu_seconds"]) for arm in summary["arms"].values())
    evaluated = summary["sets"][MAIN]["counts"]
    known = [f"{name} {versions[name]}" for name in ("torch", "transformers", "deepspeed") if versions.get(name)]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    return {
        "day": first["date"][:10],
        "first": first["date"][11:16],
        "last": last["date"][11:16],
        "machine": f"{machine['system']} {machine['machine']}, {machine['cpus']} CPUs, {gpus}",
        "wall": f"{wall / 60:.0f}",
        "cpu": f"{cpu / 60:.0f}",
        "commit": str(first["git_hash"])[:12],
        "versions": ", ".join(known),
        "seeds": ", ".join(str(seed) for seed in summary["seeds"]),
        "rows": f"{counts['rows']:,}",
        "prompt_tokens": str(scale["max_prompt_tokens"]),
        "response_tokens": str(scale["max_response_tokens"]),
        "train_pairs": f"{counts['train pairs']:,}",
        "train_prompts": str(counts["train prompts"]),
        "held_out_pairs": str(counts["held-out pairs"]),
        "held_out_prompts": str(counts["held-out prompts"]),
        "functions": _coded(summary["functions"]),
        "unseen_functions": _coded(summary["unseen_functions"]),
        "layers": str(scale["num_layers"]),
        "width": str(scale["hidden_size"]),
        "heads": str(scale["num_heads"]),
        "vocabulary": f"{scale['vocab_size']:,}",
        "warm_steps": f"{scale['warm_steps']:,}",
        "warm_first": f"{warm['curve'][0]['loss']:.2f}",
        "warm_last": f"{warm['curve'][-1]['loss']:.2f}",
        "groups_per_step": str(scale["groups_per_step"]),
        "rm_steps": str(scale["steps"]),
        "dpo_steps": str(scale["dpo_steps"]),
        "eval_prompts": str(evaluated["prompts"]),
        "eval_relations": f"{evaluated['relations']:,}",
    }


def _tables(summary: Mapping[str, Any]) -> dict[str, str]:
    arms = summary["arms"]
    both = [name for name in ("baseline", "mapl", "dpo-baseline", "dpo-mapl") if name in arms]
    found = {
        "arm_table": tables.arm_table(summary),
        "rm_table": tables.main_table(summary, MAIN, "rm"),
        "dpo_table": tables.main_table(summary, MAIN, "dpo"),
        "rm_differences": tables.difference_table(summary, MAIN, "baseline"),
        "mapl_differences": tables.difference_table(summary, MAIN, "mapl"),
        "dpo_differences": tables.difference_table(summary, MAIN, "dpo-baseline"),
        "function_table": tables.function_table(summary, both),
        "family_table": tables.family_table(summary, MAIN, both),
        "k_table": tables.k_table(summary, (MAIN, THREE), list(arms)),
        "unseen_table": tables.unseen_table(summary, UNSEEN, both),
        "length_table": tables.length_table(summary, MAIN, both),
        "seed_table": tables.seed_table(summary, list(arms)),
        "rm_targets": "",
        "dpo_targets": "",
        "disappointments": "",
    }
    if {"baseline", "mapl"} <= set(arms):
        found["rm_targets"] = targets_table(summary, MAIN, "mapl", "baseline")
        found["disappointments"] = "\n".join(f"* {item}" for item in disappointments(summary, MAIN, THREE, UNSEEN))
    if {"dpo-baseline", "dpo-mapl"} <= set(arms):
        found["dpo_targets"] = targets_table(summary, MAIN, "dpo-mapl", "dpo-baseline")
    return found


def _images(images: Mapping[str, str]) -> dict[str, str]:
    wanted = {
        "rm_plots": ("levels", "ablations"),
        "dpo_plots": ("policies",),
        "function_plots": ("by-function",),
        "k_plots": ("by-k",),
        "curve_plots": ("curve-intra", "curve-inter", "curve-pref"),
    }
    return {place: "\n".join(images[name] for name in names if name in images) for place, names in wanted.items()}


def _coded(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
