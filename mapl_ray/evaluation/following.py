"""IFEval and IFBench: verdicts of their public checkers on responses.

IFEval (Zhou et al. 2023, arXiv 2311.07911) uses the checkers of lm-evaluation-harness, IFBench (Pyatkin et al. 2025,
arXiv 2507.02833) those of its repository. Strict checks the response as it is. Loose accepts any of eight forms of it,
without its first or last line or both, without asterisks. Both procedures also come from these projects.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from mapl_ray.errors import UserError
from mapl_ray.preferences.fields import RowError

Benchmark = Literal["ifeval", "ifbench"]
_TRIAL = """The river is low this year. Boats lie on the stones, and nobody knows when the rain will come.

1. First, people carry water from the well to their gardens.
2. Then they wait; some of them sing (not very well).

"It will rain on Monday," says the old woman. Will it? We shall see!"""
# (module with the procedure, module with the registry); the first pair that can be imported is used.
_MODULES: dict[Benchmark, tuple[tuple[str, str], ...]] = {
    "ifeval": (("lm_eval.tasks.ifeval.utils", "lm_eval.tasks.ifeval.instructions_registry"),),
    "ifbench": (
        # Needs a checkout on PYTHONPATH: the package does not contain the procedure. Older versions have no package.
        ("evaluation_lib", "ifbench.instructions_registry"),
        ("evaluation_lib", "instructions_registry"),
    ),
}
# Arguments that the checkers do not use as regular expressions.
_NO_PATTERNS = frozenset({"prompt_to_repeat", "original_message", "end_phrase", "first_word"})
_OPERATORS = re.compile(r"[*+{|(\[\\]")
_LONGEST_PATTERN = 200  # characters
_CURES: dict[Benchmark, str] = {
    "ifeval": "pip install 'mapl_ray[evaluation]'",
    "ifbench": "clone github.com/allenai/IFBench, install its requirements.txt, and put the folder on PYTHONPATH",
}


@dataclass(frozen=True, slots=True)
class FollowRow:
    """One prompt with its instructions, as the public checkers take them."""

    key: str
    prompt: str
    instruction_ids: tuple[str, ...]
    kwargs: tuple[Mapping[str, Any], ...]  # one per instruction, without null values
    benchmark: Benchmark


@dataclass(frozen=True, slots=True)
class Verdict:
    """The checkers' verdict on one response: one flag per instruction, in the row's order."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]
    failed: bool = False  # a checker failed on this response: no instruction counts as followed


@dataclass(frozen=True, slots=True)
class _Checkers:
    procedure: Any  # module
    registry: Mapping[str, Any]


def follow_row(values: Mapping[str, Any]) -> FollowRow:
    """Parse a row and check an ordinary text with it, so that nothing is generated for a row that can't be checked.

    Raises `RowError` for a bad row, and `UserError` if the checkers or their data are not installed.
    """
    prompt, ids, given = (values.get(name) for name in ("prompt", "instruction_id_list", "kwargs"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise RowError("prompt", "no text", "text", prompt)
    if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
        raise RowError("instruction_id_list", "not a list of ids", "at least one, as 'keywords:existence'", ids)
    if not isinstance(given, list) or len(given) != len(ids) or not all(isinstance(one, Mapping) for one in given):
        raise RowError("kwargs", "not one object per instruction", f"a list of {len(ids)} objects", given)
    kwargs = tuple({name: value for name, value in one.items() if value is not None} for one in given)
    for index, one in enumerate(kwargs):
        _refuse_patterns(one, f"kwargs[{index}]")
    row = FollowRow(str(values.get("key", "")), prompt, tuple(ids), kwargs, _benchmark(ids))
    _try(row)
    return row


def judge_response(row: FollowRow, response: str) -> Verdict:
    """The public checkers' verdict on a response. Raises as `follow_row` does."""
    checkers = _checkers(row.benchmark)
    example = checkers.procedure.InputExample(
        key=row.key,
        instruction_id_list=list(row.instruction_ids),
        prompt=row.prompt,
        kwargs=[dict(one) for one in row.kwargs],
    )
    # IFBench looks the response up by its prompt.
    answer: Any = response if row.benchmark == "ifeval" else {row.prompt: response}
    with _data_of_checkers():
        strict = checkers.procedure.test_instruction_following_strict(example, answer)
        loose = checkers.procedure.test_instruction_following_loose(example, answer)
    return Verdict(
        tuple(bool(flag) for flag in strict.follow_instruction_list),
        tuple(bool(flag) for flag in loose.follow_instruction_list),
    )


def judge_responses(rows: Sequence[FollowRow], responses: Sequence[str]) -> list[Verdict]:
    """One verdict per row, in order. If a checker fails on a response, the verdict is marked `failed`."""
    verdicts = []
    for row, response in zip(rows, responses, strict=True):
        try:
            verdicts.append(judge_response(row, response))
        except UserError:
            raise
        except Exception:
            nothing = (False,) * len(row.instruction_ids)
            verdicts.append(Verdict(nothing, nothing, failed=True))
    return verdicts


def _refuse_patterns(kwargs: Mapping[str, Any], field: str) -> None:
    """Raise `RowError` for arguments that are regular expressions with repetition or alternatives, or too long.

    The checkers use some arguments as regular expressions, and a backtracking one could run for years.
    """
    for name, value in kwargs.items():
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str) or name in _NO_PATTERNS:
                continue
            if len(text) > _LONGEST_PATTERN:
                raise RowError(f"{field}.{name}", "too long", f"at most {_LONGEST_PATTERN} characters", text[:80])
            if (found := _OPERATORS.search(text)) is not None or text.count("?") > 1:
                what = "?" if found is None else found[0]
                raise RowError(f"{field}.{name}", f"an operator of regular expressions: {what}", "plain words", text)


def _benchmark(ids: Sequence[str]) -> Benchmark:
    """The benchmark that knows all ids. IFEval is tried first because its checkers are in a package."""
    known = _checkers("ifeval").registry
    foreign = [one for one in ids if one not in known]
    if not foreign:
        return "ifeval"
    if missing := [one for one in ids if one not in _checkers("ifbench").registry]:
        raise RowError("instruction_id_list", "unknown to IFEval and IFBench", "ids of one of the two", missing[0])
    return "ifbench"


def _try(row: FollowRow) -> None:
    if row.benchmark == "ifeval":
        # The harness drops values that are 0 or empty, and the checker then draws a random value.
        for index, one in enumerate(row.kwargs):
            if unset := [name for name, value in one.items() if not value]:
                raise RowError(f"kwargs[{index}].{unset[0]}", "0 or empty", "a value or null", one[unset[0]])
    try:
        judge_response(row, _TRIAL)
    except UserError:
        raise
    # The checkers do not validate arguments, so they can raise anything.
    except Exception as error:
        raise RowError("kwargs", f"rejected by the checker ({error!r})", "the arguments of this instruction") from None


@contextmanager
def _data_of_checkers() -> Iterator[None]:
    try:
        yield
    except LookupError as error:
        if "nltk" not in str(error).lower():
            raise
        raise UserError(
            "evaluation.sets: the checkers need NLTK's punkt_tab to split sentences, and it is not installed. Run "
            "`python -m nltk.downloader punkt_tab`, or copy it to a folder and set NLTK_DATA to that folder."
        ) from None


@cache
def _checkers(benchmark: Benchmark) -> _Checkers:
    for procedure, registry in _MODULES[benchmark]:
        try:
            found = _Checkers(importlib.import_module(procedure), importlib.import_module(registry).INSTRUCTION_DICT)
        except ImportError:
            continue
        _same_languages_every_time()
        return found
    name = {"ifeval": "IFEval", "ifbench": "IFBench"}[benchmark]
    raise UserError(f"evaluation.sets: the checkers of {name} are not installed. {_CURES[benchmark]}.")


def _same_languages_every_time() -> None:
    """Seed the checkers' language detection, which is random otherwise."""
    try:
        importlib.import_module("langdetect").DetectorFactory.seed = 0
    except ImportError:
        return
