"""Where an instruction is mapped to IFEval, both verdicts agree: ours and that of IFEval's own checker.

The checkers are those of lm-evaluation-harness, which carries Google's.
"""

import collections
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mapl_ray.config import DataConfig
from mapl_ray.instructions import REGISTRY, Instruction
from mapl_ray.preferences import read_pairs
from mapl_ray.records import PreferencePair

MAPPED = sorted(name for name, function in REGISTRY.items() if function.ifeval is not None)
UNICODE = (
    "r\u0131ver \u212aitchen \u017foon, A\u0301b",
    "\u5b57, \u5b57",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e " * 8,  # combining marks within words
    "only cafe\u0301 and river\u0301s",
    "Stra\u00dfe \u0130stanbul",
)
ODD = ("", " ", '"', "<<>>", "<< a >>", "[a][b] [\n] [c]", '"a"', *UNICODE)
TRIALS = 1_250  # of every function that is mapped


@pytest.fixture(scope="module")
def checkers(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The registry of IFEval's checkers.

    The module asks for NLTK's sentence splitter when it is imported, and would download it. Nothing that is mapped here
    splits sentences, so an empty folder of that name will do.
    """
    folder = tmp_path_factory.mktemp("nltk")
    (folder / "tokenizers" / "punkt_tab").mkdir(parents=True)
    import nltk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk.data, "path", [str(folder)])
        from lm_eval.tasks.ifeval import instructions_registry
    return instructions_registry


@pytest.fixture(scope="module")
def responses(shared_data: Path) -> list[str]:
    """Real responses, long and short, and some odd texts."""
    found = []
    for name in ("alpaca_eval_pairs.jsonl.gz", "hh_harmless_base_test.jsonl.gz", "pandalm_human.jsonl.gz"):
        pairs = [p for p in read_pairs(DataConfig(path=str(shared_data / name))) if isinstance(p, PreferencePair)]
        found += [text for pair in pairs[:: len(pairs) // 250] for text in (pair.chosen, pair.rejected)]
    return [*found, *ODD]


def verdict(checkers: ModuleType, mapped: tuple[str, dict[str, Any]], response: str) -> bool:
    kind, kwargs = mapped
    checker = checkers.INSTRUCTION_DICT[kind](kind)
    checker.build_description(**kwargs)
    return bool(checker.check_following(response))


@pytest.mark.parametrize("name", MAPPED)
def test_verdicts_agree(name: str, checkers: ModuleType, responses: list[str]) -> None:
    function, rng = REGISTRY[name], random.Random(name)
    seen: collections.Counter[tuple[str, bool]] = collections.Counter()
    while seen.total() < TRIALS:
        written_for, other = rng.sample(responses, 2)
        instruction = function.generate(written_for, rng.random() < 0.5, rng, other=other)
        mapped = None if instruction is None else instruction.to_ifeval()
        if instruction is None or mapped is None:
            continue
        for response in (written_for, other, *rng.sample(responses, 6), *ODD):
            ours = instruction.check(response)
            assert ours == verdict(checkers, mapped, response), (instruction, response[:200])
            seen[mapped[0], ours] += 1
    assert len(seen) == 2, f"both verdicts of one kind, {seen}"


def test_ten_thousand_trials_of_all_kinds() -> None:
    assert len(MAPPED) * TRIALS >= 10_000
    assert {"word_count", "letter_count", "forbid_word", "comma_use", "marked_title", "placeholders"} <= {*MAPPED}


@pytest.mark.parametrize("word", ["cafe", "river", "strasse", "istanbul", "kitchen", "soon"])
def test_words_beside_marks_and_look_alikes(word: str, checkers: ModuleType) -> None:
    for name, args in (("forbid_word", {"word": word}), ("any_of_words", {"words": [word, "absent"], "use": False})):
        instruction = Instruction(name, REGISTRY[name].family, args, "")
        mapped = instruction.to_ifeval()
        assert mapped is not None
        for response in ODD:
            assert instruction.check(response) == verdict(checkers, mapped, response), response
