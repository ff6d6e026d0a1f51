"""The prompt alone does not tell which side of an intra relation it stands on."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from mapl_ray.config import DataConfig, SynthesisConfig
from mapl_ray.data.records import Level, Message, PreferencePair, RelationGroup
from mapl_ray.preferences import eval_split, read_pairs
from mapl_ray.synthesis import synthesize
from mapl_ray.synthesis.leak import BOUND, Compared, accuracies, compared, leak

FILES = {"alpaca_eval": ("alpaca_eval_pairs.jsonl.gz", 2), "hh": ("hh_harmless_base_test.jsonl.gz", 1)}


@pytest.fixture(scope="module", params=["alpaca_eval", pytest.param("hh", marks=pytest.mark.long)])
def real_pairs(request: pytest.FixtureRequest, shared_data: Path) -> list[PreferencePair]:
    """Every second AlpacaEval pair, or all HH transcripts."""
    name, step = FILES[request.param]
    found = [item for item in read_pairs(DataConfig(path=str(shared_data / name))) if isinstance(item, PreferencePair)]
    return found[::step]


def split(pairs: list[PreferencePair], config: SynthesisConfig) -> tuple[list[Compared], list[Compared]]:
    """Relations to learn from, and those of other pairs; pairs of one prompt stay together."""
    sides: tuple[list[Compared], list[Compared]] = ([], [])
    for pair in pairs:
        group = synthesize(pair, config, 7)
        if isinstance(group, RelationGroup):
            sides[eval_split(pair, 1 / 3, 0)].extend(compared(group))
    return sides


@pytest.mark.parametrize("condition", ["all", pytest.param("any", marks=pytest.mark.long)])
@pytest.mark.parametrize("layout", ["grid", pytest.param("independent", marks=pytest.mark.long)])
def test_prompt_alone(layout: str, condition: str, real_pairs: list[PreferencePair]) -> None:
    assert len(real_pairs) >= 1500
    config = SynthesisConfig.model_validate({"layout": layout, "condition": condition, "max_instructions": 5})
    train, test = split(real_pairs, config)
    assert len(test) >= 900
    single, paired = accuracies(train, test)
    told = f"{real_pairs[0].source} {layout} {condition}: single {single:.3f}, paired {paired:.3f} of {len(test)}"
    print(told)
    if layout == "grid":
        # Every instructed prompt stands once on either side: whatever is said of it is right half of the time.
        assert (single, paired) == (pytest.approx(0.5), pytest.approx(0.5)), told
    assert max(single, paired) <= BOUND, told


@pytest.mark.long
def test_each_function_alone(shared_data: Path) -> None:
    """The direction a function takes (at least or at most, use or avoid) does not go with one side either."""
    items = read_pairs(DataConfig(path=str(shared_data / FILES["alpaca_eval"][0])))
    pairs = [item for item in items if isinstance(item, PreferencePair)][::3]
    config = SynthesisConfig(layout="independent", k_weights={2: 1})
    sides: dict[str, Counter[tuple[str, bool]]] = {}
    for pair in pairs:
        group = synthesize(pair, config, 7)
        if not isinstance(group, RelationGroup):
            continue
        for relation in group.relations:
            for cells, preferred in ((relation.preferred, True), (relation.dispreferred, False)):
                if relation.level is Level.INTRA:
                    for record in group.instructions[group.sequences[cells[0]].prompt]:
                        way = record.args.get("direction", record.args.get("use"))
                        sides.setdefault(record.name, Counter())[str(way), preferred] += 1
    seen = 0
    for name, counts in sides.items():
        for way in {way for way, _ in counts}:
            liked, disliked = counts[way, True], counts[way, False]
            if liked + disliked >= 60:
                seen += 1
                # Four standard deviations of a fair coin.
                assert abs(liked - disliked) <= 4 * (liked + disliked) ** 0.5, (name, way, liked, disliked)
    assert seen >= 40


def test_the_classifier_would_notice() -> None:
    """A word that goes with a side, always or now and then."""
    pairs = [
        PreferencePair(str(n), (Message("user", f"Question {n}"),), "one two " * 20, "three " * 60 + str(n), "made up")
        for n in range(600)
    ]
    train, test = split(pairs, SynthesisConfig(functions=("word_count", "include_word", "sentence_count")))

    def leaky(items: list[Compared], every: int) -> list[Compared]:
        return [
            Compared(item.preferred + (" Do so." if n % every == 0 else ""), item.dispreferred)
            for n, item in enumerate(items)
        ]

    assert accuracies(leaky(train, 1), leaky(test, 1))[0] > 0.95
    # On every fifth preferred prompt: that already fails the test above.
    assert accuracies(leaky(train, 5), leaky(test, 5))[1] > 0.55


def test_groups_are_asked_about_by_prompt(real_pairs: list[PreferencePair]) -> None:
    groups = [synthesize(pair, SynthesisConfig(layout="independent"), 1) for pair in real_pairs[:400]]
    found = leak(group for group in groups if isinstance(group, RelationGroup))
    assert found is not None
    assert 0.4 < found.single < 0.6  # 250 prompts of either side: three standard deviations are 0.07
    assert 150 < found.relations < 400
    assert leak([]) is None


def test_a_turn_after_the_last_user_turn_is_no_instruction(shared_data: Path) -> None:
    """Instructions are read from the turn that they were joined with, not from the last message."""
    items = read_pairs(DataConfig(path=str(shared_data / FILES["alpaca_eval"][0]), limit=20))
    for pair in (item for item in items if isinstance(item, PreferencePair)):
        begun = replace(pair, prompt=(*pair.prompt, Message("assistant", "A long beginning of an answer: " * 99)))
        group, plain = synthesize(begun, SynthesisConfig(), 7), synthesize(pair, SynthesisConfig(), 7)
        assert isinstance(group, RelationGroup) == isinstance(plain, RelationGroup)
        if isinstance(group, RelationGroup) and isinstance(plain, RelationGroup):
            assert compared(group) == compared(plain)
            assert all(side.preferred.startswith("\n\n") for side in compared(group))
