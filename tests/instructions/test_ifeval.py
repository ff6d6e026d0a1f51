"""Where an instruction is mapped to IFEval, both verdicts agree: ours and that of IFEval's own checker.

The checkers are those of lm-evaluation-harness, which carries Google's.
"""

import collections
import itertools
import random
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from mapl_ray.config import DataConfig
from mapl_ray.data.records import InstructionRecord, PreferencePair
from mapl_ray.instructions import REGISTRY, Instruction
from mapl_ray.preferences import read_pairs

# What is mapped to which kinds; docs/instructions.md says why nothing else is.
KINDS = {
    "any_of_words": {"keywords:forbidden_words"},
    "comma_count": {"keywords:frequency"},
    "comma_use": {"keywords:existence", "punctuation:no_comma"},
    "exact_ending": {"startend:end_checker"},
    "forbid_word": {"keywords:forbidden_words"},
    "in_quotation_marks": {"startend:quotation"},
    "letter_count": {"keywords:letter_frequency"},
    "marked_title": {"detectable_format:title"},
    "placeholders": {"detectable_content:number_placeholders"},
    "prompt_word": {"keywords:forbidden_words"},
    "word_count": {"length_constraints:number_words"},
}
UNICODE = (
    "r\u0131ver \u212aitchen \u017foon, A\u0301b",
    "\u5b57, \u5b57",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e " * 8,  # combining marks within words
    "only cafe\u0301 and river\u0301s",
    "Stra\u00dfe \u0130stanbul",
)
ODD = ("", " ", ",", ",,,", "c++, .*", '"', "<<>>", "<< a >>", "[a][b] [\n] [c]", '"a"', *UNICODE)
TRIALS = 1_000  # on real responses, of every function and kind; those on odd texts come on top
DRAWS = 20_000  # more than enough for them


class Text(NamedTuple):
    """A response, the other one to its prompt, and the prompt."""

    response: str
    other: str
    prompt: str


@pytest.fixture(scope="module")
def texts(shared_data: Path) -> list[Text]:
    """Real responses, long and short."""
    found = []
    for name in ("alpaca_eval_pairs.jsonl.gz", "hh_harmless_base_test.jsonl.gz", "pandalm_human.jsonl.gz"):
        pairs = [p for p in read_pairs(DataConfig(path=str(shared_data / name))) if isinstance(p, PreferencePair)]
        for pair in pairs[:: len(pairs) // 250]:
            prompt = pair.prompt[-1].content
            found += [Text(pair.chosen, pair.rejected, prompt), Text(pair.rejected, pair.chosen, prompt)]
    return found


def verdict(checkers: ModuleType, mapped: tuple[str, dict[str, Any]], response: str) -> bool:
    __tracebackhide__ = True  # a failure shows no text of the data
    kind, kwargs = mapped
    checker = checkers.INSTRUCTION_DICT[kind](kind)
    checker.build_description(**kwargs)
    return bool(checker.check_following(response))


def test_these_are_mapped_and_no_others() -> None:
    mapped = {name for name, function in REGISTRY.items() if function.ifeval is not None}
    assert mapped == set(KINDS) | {"word_count_between"}  # the last one to IFBench
    assert sum(map(len, KINDS.values())) * TRIALS >= 10_000


@pytest.mark.parametrize("name", KINDS)
def test_verdicts_agree(name: str, checkers: ModuleType, texts: list[Text]) -> None:
    function, rng = REGISTRY[name], random.Random(name)
    trials: collections.Counter[str] = collections.Counter()
    seen: set[tuple[str, bool]] = set()
    for _ in range(DRAWS):
        text = rng.choice(texts)
        instruction = function.generate(text.response, rng.random() < 0.5, rng, other=text.other, prompt=text.prompt)
        mapped = None if instruction is None else instruction.to_ifeval()
        if instruction is None or mapped is None:
            continue
        real = [text.response, text.other, *(one.response for one in rng.sample(texts, 6))]
        pairs = [(instruction.check(one), verdict(checkers, mapped, one)) for one in (*real, *ODD)]
        different = [i for i, (ours, theirs) in enumerate(pairs) if ours != theirs]
        assert not different, f"{mapped[0]} on {len(real)} real responses and the odd texts: numbers {different}"
        trials[mapped[0]] += len(real)
        seen |= {(mapped[0], ours) for ours, _ in pairs}
        if min(trials[kind] for kind in KINDS[name]) >= TRIALS:
            break
    assert set(trials) == KINDS[name]
    assert min(trials.values()) >= TRIALS
    assert seen == {(kind, verdict) for kind in KINDS[name] for verdict in (True, False)}


@pytest.mark.parametrize("name", ["word_count", "letter_count", "comma_count"])
def test_verdicts_agree_at_the_very_number(name: str, checkers: ModuleType, texts: list[Text]) -> None:
    """Drawn thresholds keep a margin; here they are the response's own count, and one beside it."""
    rng = random.Random(name)
    different, trials = set(), 0
    for number, response in enumerate([*(text.response for text in rng.sample(texts, 200)), *ODD]):
        count = next(n for n in itertools.count() if not bounded(name, "at least", n + 1).check(response))
        for direction, n in itertools.product(("at least", "at most"), (max(0, count - 1), count, count + 1)):
            instruction = bounded(name, direction, n)
            mapped = instruction.to_ifeval()
            assert mapped is not None
            trials += 1
            if instruction.check(response) != verdict(checkers, mapped, response):
                different.add(number)
    assert trials >= TRIALS
    assert not different


def bounded(name: str, direction: str, n: int) -> Instruction:
    others = {"letter": "e"} if name == "letter_count" else {}
    return Instruction(name, REGISTRY[name].family, {"direction": direction, "n": n, **others}, "")


BOUNDS = [{"direction": "at least", "n": -1}, {"direction": "at most", "n": -2}, {"direction": "at most", "n": 2.5}]


@pytest.mark.parametrize(
    ("name", "args"),
    [
        *(("word_count", bound) for bound in BOUNDS),  # a number below 0 is replaced by a random one
        *(("comma_count", bound) for bound in BOUNDS),
        *(("letter_count", {"letter": "a"} | bound) for bound in BOUNDS),
        *(("letter_count", {"letter": a, "direction": "at least", "n": 1}) for a in ("A", "\u00e9", "ab", "")),
        *(("forbid_word", {"word": word}) for word in ("c++", "a.b", "two words", "(", "", "caf\u00e9")),  # patterns
        *(("prompt_word", {"word": word, "use": False}) for word in ("c++", "", "caf\u00e9")),
        *(("any_of_words", {"words": words, "use": False}) for words in ([], ["river", "c++"], ["river", "caf\u00e9"])),
    ],
)
def test_stored_arguments_that_ifeval_takes_otherwise_are_not_mapped(name: str, args: dict[str, Any]) -> None:
    assert Instruction.from_record(InstructionRecord(name, "made up", args)).to_ifeval() is None


@pytest.mark.parametrize("word", ["cafe", "river", "strasse", "istanbul", "kitchen", "soon"])
def test_words_beside_marks_and_look_alikes(word: str, checkers: ModuleType) -> None:
    for name, args in (
        ("forbid_word", {"word": word}),
        ("any_of_words", {"words": [word, "absent"], "use": False}),
        ("prompt_word", {"word": word, "use": False}),
    ):
        instruction = Instruction(name, REGISTRY[name].family, args, "")
        mapped = instruction.to_ifeval()
        assert mapped is not None
        for response in ODD:
            assert instruction.check(response) == verdict(checkers, mapped, response), response
