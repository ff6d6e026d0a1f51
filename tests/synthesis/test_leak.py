"""The prompt alone does not tell which side of a relation it stands on.

A bag-of-words classifier (logistic regression in numpy) is trained on instructed prompts and asked about those of
other pairs.
"""

import random
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from mapl_ray.records import Level, RelationGroup


def _labelled(groups: list[RelationGroup], levels: set[Level]) -> list[tuple[str, int]]:
    """(text, 1 preferred or 0 dispreferred) of every instructed prompt, once a relation and response."""
    rows = []
    for group in groups:
        for relation in group.relations:
            for cells, label in ((relation.preferred, 1), (relation.dispreferred, 0)):
                prompts = [group.sequences[cell].prompt for cell in cells]
                rows += [(group.prompts[p][-1].content, label) for p in prompts if p and relation.level in levels]
    return rows


def _held_out_accuracy(train: list[tuple[str, int]], test: list[tuple[str, int]]) -> float:
    def tokens(text: str) -> list[str]:
        words = re.findall(r"\w+", text.lower())
        return words + [f"{a} {b}" for a, b in pairwise(words)]

    counts = Counter(token for text, _ in train for token in set(tokens(text)))
    columns = {token: i for i, (token, n) in enumerate(counts.most_common(2500)) if n > 1}

    def matrix(rows: list[tuple[str, int]]) -> tuple[np.ndarray, np.ndarray]:
        x = np.zeros((len(rows), len(columns) + 1), dtype=np.float32)
        x[:, -1] = 1.0
        for i, (text, _) in enumerate(rows):
            for token in tokens(text):
                if token in columns:
                    x[i, columns[token]] = 1.0
        return x, np.array([label for _, label in rows], dtype=np.float32)

    x, y = matrix(train)
    weights = np.zeros(x.shape[1], dtype=np.float32)
    for _ in range(200):
        p = 1 / (1 + np.exp(-(x @ weights)))
        weights -= 2.0 * (x.T @ (p - y) / len(y) + 1e-3 * weights)
    x_test, y_test = matrix(test)
    return float(((x_test @ weights > 0) == (y_test > 0.5)).mean())


def _split(groups: list[RelationGroup], levels: set[Level]) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    texts = sorted({group.prompts[0][-1].content for group in groups})
    held = set(random.Random(0).sample(texts, len(texts) // 3))
    train = [group for group in groups if group.prompts[0][-1].content not in held]
    test = [group for group in groups if group.prompts[0][-1].content in held]
    return _labelled(train, levels), _labelled(test, levels)


@pytest.mark.parametrize("condition", ["all", "any"])
@pytest.mark.parametrize("layout", ["grid", "independent"])
def test_prompt_alone(layout, condition, groups_of) -> None:
    groups = [group for group in groups_of(layout, condition) if isinstance(group, RelationGroup)]
    train, test = _split(groups, {Level.INTRA})
    accuracy = _held_out_accuracy(train, test)
    print(f"{layout} {condition}: {accuracy:.3f} of {len(test)}")
    if layout == "grid":
        # Every instructed prompt stands once on either side: whatever is said of it is right half of the time.
        assert accuracy == pytest.approx(0.5)
    else:
        assert accuracy <= 0.55


def test_the_classifier_would_notice(groups_of) -> None:
    groups = [group for group in groups_of("grid", "all") if isinstance(group, RelationGroup)]
    train, test = _split(groups, {Level.INTRA})

    def leaky(rows: list[tuple[str, int]]) -> list[tuple[str, int]]:
        return [(text + (" Use at least that." if label else " Use at most that."), label) for text, label in rows]

    assert _held_out_accuracy(leaky(train), leaky(test)) > 0.95
