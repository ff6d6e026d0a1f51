"""The prompt alone does not tell which side of an intra relation it stands on.

A logistic regression over words and pairs of words reads the instructions of two thirds of the pairs and is asked about
those of the others. It would find any word, number or phrasing that goes with one side. It is spared the original
prompt, which is on both sides and would only be noise to it.
"""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mapl_ray.config import DataConfig, SynthesisConfig
from mapl_ray.preferences import eval_split, read_pairs
from mapl_ray.records import Level, Message, PreferencePair, RelationGroup
from mapl_ray.synthesis import synthesize

FEATURES = 3000
FILES = {"alpaca_eval": ("alpaca_eval_pairs.jsonl.gz", 2), "hh": ("hh_harmless_base_test.jsonl.gz", 1)}


@dataclass(frozen=True)
class Compared:
    """The two prompts of one intra relation."""

    preferred: str
    dispreferred: str


@pytest.fixture(scope="module", params=list(FILES))
def real_pairs(request: pytest.FixtureRequest, shared_data: Path) -> list[PreferencePair]:
    """Every second AlpacaEval pair, or all HH transcripts."""
    name, step = FILES[request.param]
    found = [item for item in read_pairs(DataConfig(path=str(shared_data / name))) if isinstance(item, PreferencePair)]
    return found[::step]


def compared(group: RelationGroup) -> list[Compared]:
    """What was added to the original prompt, on either side of every intra relation."""
    original = len(group.prompts[0][-1].content)

    def text(cells: tuple[int, ...]) -> str:
        return group.prompts[group.sequences[cells[0]].prompt][-1].content[original:]

    intra = [relation for relation in group.relations if relation.level is Level.INTRA]
    return [Compared(text(relation.preferred), text(relation.dispreferred)) for relation in intra]


def split(pairs: list[PreferencePair], config: SynthesisConfig) -> tuple[list[Compared], list[Compared]]:
    """Relations to learn from, and those of other pairs; pairs of one prompt stay together."""
    sides: tuple[list[Compared], list[Compared]] = ([], [])
    for pair in pairs:
        group = synthesize(pair, config, 7)
        if isinstance(group, RelationGroup):
            sides[eval_split(pair, 1 / 3, 0)].extend(compared(group))
    return sides


def tokens(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {*words, *(f"{a} {b}" for a, b in pairwise(words))}


def accuracies(train: list[Compared], test: list[Compared]) -> tuple[float, float]:
    """Of single prompts (which side is it?), and of relations (which of the two is preferred? a tie is half right)."""
    counts = Counter(token for item in train for text in (item.preferred, item.dispreferred) for token in tokens(text))
    columns = {token: index for index, (token, _) in enumerate(counts.most_common(FEATURES))}

    def matrix(texts: list[str]) -> torch.Tensor:
        x = torch.zeros(len(texts), len(columns) + 1)
        x[:, -1] = 1.0
        for row, text in enumerate(texts):
            x[row, [columns[token] for token in tokens(text) if token in columns]] = 1.0
        return x

    x = torch.cat([matrix([item.preferred for item in train]), matrix([item.dispreferred for item in train])])
    y = torch.cat([torch.ones(len(train)), torch.zeros(len(train))])
    weights = fitted(x, y)
    better, worse = (matrix([getattr(i, side) for i in test]) @ weights for side in ("preferred", "dispreferred"))
    single = torch.cat([better > 0, worse <= 0]).double().mean()
    paired = (better > worse).double().mean() + (better == worse).double().mean() / 2
    return float(single), float(paired)


def fitted(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Weights of the logistic regression, to convergence."""
    weights = torch.zeros(x.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(x @ weights, y) + 1e-3 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weights.detach()


@pytest.mark.parametrize("condition", ["all", "any"])
@pytest.mark.parametrize("layout", ["grid", "independent"])
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
    assert max(single, paired) <= 0.55, told


def test_each_function_alone(shared_data: Path) -> None:
    """The direction a function takes (at least or at most, use or avoid) does not go with one side either."""
    items = read_pairs(DataConfig(path=str(shared_data / FILES["alpaca_eval"][0])))
    pairs = [item for item in items if isinstance(item, PreferencePair)][::4]
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
