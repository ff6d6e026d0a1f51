"""The table of docs/instructions.md on how often families are drawn, beside how often prompts ask for them.

Counts are of IFEval's 541 prompts and of the distinct prompts of three preference data sets, all in `DATA`.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mapl_ray.instructions import REGISTRY
from mapl_ray.instructions.weights import FAMILY_WEIGHTS, weight_of

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
# What a user writes who asks for such a thing. `PHRASES` need not find every one: they are counted alike for all.
_NUMBER = r"(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten|a single|a few)"
PHRASES = {
    "length": rf"\b{_NUMBER}(?: or \w+|-)? ?(?:words?|characters?)\b|\bword (?:limit|count)"
    r"|\b(?:short|brief|concise)\b",
    "sentences": rf"\b{_NUMBER}(?: or \w+|-)? ?sentences?\b|\b(?:short|complete|full) sentences\b",
    "paragraphs": r"\bparagraphs?\b",
    "lines": rf"\b{_NUMBER} lines?\b|\bone[- ]liner\b|\bon (?:a|its own|separate) lines?\b",
    "lists": r"\bbullet|\bnumbered list\b|\b(?:make|create|write|give me|as) an? list\b|\blist of\b",
    "format": r"\btables?\b|\bmarkdown\b|\bheadings?\b|\bJSON\b|\bcode block\b|\bbold\b|\blinks?\b|\bsections?\b",
    "keywords": r"\b(?:us\w+|includ\w+|contain\w+|avoid\w*) the (?:word|phrase|keyword|term)s?\b|\bkeywords?\b"
    r"|\bfollowing words\b|\bwithout using\b",
    "punctuation": r"\bcommas?\b|\bpunctuat\w+|\bexclamation|\bquot(?:es|ation marks)\b"
    r"|\bbrackets\b|\bquestion marks?\b",
    "start_end": r"\b(?:start|begin|end|finish)s?(?:ing)? (?:it |your \w+ |the \w+ )?with\b|\bpostscript\b",
    "position": r"\b(?:first|last|second|third) (?:word|sentence)\b",
    "case": r"\b(?:upper|lower)[ -]?case\b|\bcapital(?:iz\w+|s| letters?)\b|\ball caps\b",
    "numbers": r"\bdigits?\b|\bpercentages?\b|\bin numbers\b|\b(?:give|include|state) the (?:year|date)\b",
    "address": r"\b(?:first|second|third)[- ]person\b|\bpronouns?\b|\bperspective of\b|\bpoint of view\b",
    "script": r"\bemojis?\b|\bin (?:English|French|German|Spanish|Italian|Hindi|Chinese|Japanese)\b",
    "vocabulary": r"\bsyllables?\b|\bletters? [\"'\u201c]?[a-z]\b|\b(?:simple|different|unique) words\b|\balliterat\w+",
    "copying": r"\brepeat (?:the|my|this)\b|\bword for word\b|\bin your own words\b",
    "ratios": r"\bon average\b|\bwords per (?:sentence|paragraph)\b",
}  # fmt: skip


def demand(page: str) -> str:
    """The table; `page` holds those of IFEval's and IFBench's kinds."""
    kinds = Counter(kind for row in _rows(DATA / "ifeval_prompts.jsonl.gz") for kind in row["instruction_id_list"])
    ifeval, ifbench = _families(page, "IFEval's kinds"), _families(page, "IFBench's kinds")
    prompts = real_prompts()
    total = sum(FAMILY_WEIGHTS.values())
    lines = [
        f"| family | share of draws | its functions, by weight | in IFEval's prompts | kinds of IFBench | "
        f"in {len(prompts):,} real prompts |",
        "|---|---|---|---|---|---|",
    ]
    for family, weight in sorted(FAMILY_WEIGHTS.items(), key=lambda item: (-item[1], item[0])):
        members = [name for name, function in REGISTRY.items() if function.family == family]
        listed = ", ".join(
            f"`{name}` {weight_of(name):g}" for name in sorted(members, key=lambda n: (-weight_of(n), n))
        )
        asked = sum(kinds[kind] for kind, families in ifeval.items() if family in families)
        benched = sum(family in families for families in ifbench.values())
        real = sum(re.search(PHRASES[family], prompt, re.IGNORECASE) is not None for prompt in prompts)
        lines.append(f"| {family} | {100 * weight / total:.1f} % | {listed} | {asked} | {benched} | {real} |")
    return "\n".join(lines)


def real_prompts() -> list[str]:
    """The distinct prompts of the three data sets; of a conversation its last human turn."""
    prompts = [row["prompt"] for name in ("alpaca_eval_pairs", "pandalm_human") for row in _rows(_file(name))]
    turns = [row["chosen"].rsplit("\n\nHuman:", 1)[-1] for row in _rows(_file("hh_harmless_base_test"))]
    prompts += [turn.split("\n\nAssistant:", 1)[0].strip() for turn in turns]
    return [*dict.fromkeys(prompts)]


def _file(name: str) -> Path:
    return DATA / f"{name}.jsonl.gz"


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        yield from map(json.loads, handle)


def _families(page: str, heading: str) -> dict[str, set[str]]:
    """Kind -> the families of the functions that mean the same."""
    section = page.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): {REGISTRY[name].family for name in re.findall(r"`(\w+)`", row[2])} for row in rows}
