"""IFEval and IFBench: verdicts of their own public checkers on responses, none of ours.

IFEval (Zhou et al. 2023, arXiv 2311.07911) with the checkers that lm-evaluation-harness carries; IFBench (Pyatkin et
al. 2025, arXiv 2507.02833) with those of its repository. Strict: the response as it is. Loose: any of eight forms of
it, without its first or last line or both, without asterisks. Both procedures are the checkers' own, too.
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
# (module with the procedure, module with the registry), the first that can be imported.
_MODULES: dict[Benchmark, tuple[tuple[str, str], ...]] = {
    "ifeval": (("lm_eval.tasks.ifeval.utils", "lm_eval.tasks.ifeval.instructions_registry"),),
    "ifbench": (
        # A checkout of the repository on PYTHONPATH: the procedure is not in the package. In older ones nothing was.
        ("evaluation_lib", "ifbench.instructions_registry"),
        ("evaluation_lib", "instructions_registry"),
    ),
}
# Arguments that the checkers compare as they are, or not at all.
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
    kwargs: tuple[Mapping[str, Any], ...]  # one an instruction, without those that are not set
    benchmark: Benchmark


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checkers say of one response; a flag an instruction, in the row's order."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]
    failed: bool = False  # a checker broke off on this response: nothing counts as followed


@dataclass(frozen=True, slots=True)
class _Checkers:
    procedure: Any  # module
    registry: Mapping[str, Any]


def follow_row(values: Mapping[str, Any]) -> FollowRow:
    """A row, tried on an ordinary text, so that nothing is generated for one that can't be checked.

    Raises `RowError` for what the row holds, `UserError` where the checkers or what they need are not installed.
    """
    prompt, ids, given = (values.get(name) for name in ("prompt", "instruction_id_list", "kwargs"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise RowError("prompt", "no text", "text", prompt)
    if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
        raise RowError("instruction_id_list", "not a list of ids", "at least one, as 'keywords:existence'", ids)
    if not isinstance(given, list) or len(given) != len(ids) or not all(isinstance(one, Mapping) for one in given):
        raise RowError("kwargs", "not one object an instruction", f"a list of {len(ids)} objects", given)
    kwargs = tuple({name: value for name, value in one.items() if value is not None} for one in given)
    for index, one in enumerate(kwargs):
        _refuse_patterns(one, f"kwargs[{index}]")
    row = FollowRow(str(values.get("key", "")), prompt, tuple(ids), kwargs, _benchmark(ids))
    _try(row)
    return row


def judge_response(row: FollowRow, response: str) -> Verdict:
    """The public checkers' verdicts on a response. Raises as `follow_row` does."""
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
    """A verdict a row, in order. Where a checker breaks off on a text, that is counted, not raised."""
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
    """The checkers search some texts as regular expressions, and one that backtracks would search for years.

    Raises `RowError` for operators that repeat or choose in a text of theirs that is a keyword by its length.
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
    """Whose instructions they are: IFEval's registry is asked first, for it is the one that a package carries."""
    known = _checkers("ifeval").registry
    foreign = [one for one in ids if one not in known]
    if not foreign:
        return "ifeval"
    if missing := [one for one in ids if one not in _checkers("ifbench").registry]:
        raise RowError("instruction_id_list", "unknown to IFEval and IFBench", "ids of one of the two", missing[0])
    return "ifbench"


def _try(row: FollowRow) -> None:
    if row.benchmark == "ifeval":
        # The harness leaves out what is 0 or empty, and the checker then draws a value of its own.
        for index, one in enumerate(row.kwargs):
            if unset := [name for name, value in one.items() if not value]:
                raise RowError(f"kwargs[{index}].{unset[0]}", "0 or empty", "a value or null", one[unset[0]])
    try:
        judge_response(row, _TRIAL)
    except UserError:
        raise
    # The checkers check no arguments: whatever they do with odd ones ends here.
    except Exception as error:
        raise RowError("kwargs", f"refused by the checker ({error!r})", "the arguments of its kind") from None


@contextmanager
def _data_of_checkers() -> Iterator[None]:
    try:
        yield
    except LookupError as error:
        if "nltk" not in str(error).lower():
            raise
        raise UserError(
            "evaluation.sets: the checkers split sentences with NLTK's punkt_tab, which is not there. Run "
            "`python -m nltk.downloader punkt_tab`, or copy it to a folder and set NLTK_DATA to that."
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
    """The checkers' detection of languages draws at random, unless it is given a seed."""
    try:
        importlib.import_module("langdetect").DetectorFactory.seed = 0
    except ImportError:
        return
