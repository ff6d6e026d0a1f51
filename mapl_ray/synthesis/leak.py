"""Measure whether a prompt by itself reveals its side of an intra relation, with a trained classifier.

A logistic regression over words and word bigrams is trained on the instructions of some groups and tested on those of
others. It would find any word, number or phrasing that correlates with one side. It does not see the original prompt,
which is the same on both sides and would only add noise.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mapl_ray.data.records import Level, RelationGroup
from mapl_ray.preferences import place_of, prompt_key
from mapl_ray.synthesis.join import last_user_turn

if TYPE_CHECKING:
    import torch

FEATURES = 3000
BOUND = 0.55  # accuracy from which prompts count as revealing their side


@dataclass(frozen=True, slots=True)
class Compared:
    """The two prompts of one intra relation."""

    preferred: str
    dispreferred: str


@dataclass(frozen=True, slots=True)
class Leak:
    """Accuracy of the classifier; 0.5 is chance level."""

    single: float  # on single prompts: preferred or dispreferred?
    paired: float  # on relations: which of the two prompts is preferred? A tie counts as half
    relations: int  # number of relations tested


def compared(group: RelationGroup) -> list[Compared]:
    """The text added to the original prompt on each side of every intra relation."""
    turn = last_user_turn(group.prompts[0])
    assert turn is not None  # synthesis rejects pairs without a user turn
    original = len(group.prompts[0][turn].content)

    def text(cells: tuple[int, ...]) -> str:
        return group.prompts[group.sequences[cells[0]].prompt][turn].content[original:]

    intra = [relation for relation in group.relations if relation.level is Level.INTRA]
    return [Compared(text(relation.preferred), text(relation.dispreferred)) for relation in intra]


def leak(groups: Iterable[RelationGroup]) -> Leak | None:
    """Train on two thirds of the prompts and test on the others; None if there are too few."""
    sides: tuple[list[Compared], list[Compared]] = ([], [])
    for group in groups:
        sides[place_of(prompt_key(group.prompts[0])) < 1 / 3].extend(compared(group))
    train, test = sides
    if min(len(train), len(test)) < 20:
        return None
    return Leak(*accuracies(train, test), relations=len(test))


def tokens(text: str) -> set[str]:
    """Words and word bigrams of a text."""
    words = re.findall(r"\w+", text.lower())
    return {*words, *(f"{a} {b}" for a, b in pairwise(words))}


def accuracies(train: Sequence[Compared], test: Sequence[Compared]) -> tuple[float, float]:
    """Test accuracy on single prompts (which side?) and on relations (which prompt is preferred? a tie counts half)."""
    import torch  # imported here, so that importing this module stays fast

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
    """Weights of the logistic regression, fitted to convergence."""
    import torch

    weights = torch.zeros(x.shape[1], requires_grad=True)
    optimizer: Any = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value: Any = (
            torch.nn.functional.binary_cross_entropy_with_logits(x @ weights, y) + 1e-3 * weights.square().sum()
        )
        value.backward()
        summed: torch.Tensor = value
        return summed

    optimizer.step(loss)
    return weights.detach()
