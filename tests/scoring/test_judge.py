"""p(yes) of a judge: by hand, with a scorer made of arithmetic, and with a vLLM engine against transformers."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mapl_ray.config import ScoringConfig, SynthesisConfig
from mapl_ray.data.records import Judgement, Message, PreferencePair, Rejection
from mapl_ray.errors import UserError
from mapl_ray.instructions import REGISTRY
from mapl_ray.models import load_policy, load_tokenizer
from mapl_ray.scoring import EngineOptions, judge
from mapl_ray.scoring.judge import (
    Judged,
    find_answers,
    judge_pairs,
    judge_prompts,
    judge_questions,
    p_yes,
    whole_answers,
)

QUESTIONS = {name: REGISTRY[name].question or "" for name in ("formal_tone", "gives_a_reason")}
PAIR = PreferencePair("p", (Message("user", "Why?"),), "Because {it} rains.", "yes yes yes", "made-up")


def test_p_yes_by_hand() -> None:
    # 0.2 + 0.1 for yes, 0.1 for no: 0.3 / 0.4.
    assert p_yes([math.log(0.2), math.log(0.1)], [math.log(0.1)]) == pytest.approx(0.75)
    assert p_yes([-2000.0], [-2000.0 + math.log(3)]) == pytest.approx(0.25)  # far below what exp can hold
    assert p_yes([-math.inf, -5.0], [-math.inf]) == 1.0
    assert p_yes([-math.inf], [0.0]) == 0.0
    assert math.isnan(p_yes([-math.inf], [-math.inf]))


def test_answers_are_tokens_where_there_are_any_and_strings_where_not(judge_model: Path, tokenizer: Any) -> None:
    ours = load_tokenizer(judge_model)
    found = find_answers(ours)
    assert found.single
    assert {ours.decode(ids) for ids in found.yes} == {"yes", " yes", "Yes", " Yes"}
    assert {ours.decode(ids) for ids in found.no} == {"no", " no", "No", " No"}
    assert not set(found.yes) & set(found.no)
    strings = find_answers(tokenizer)  # of river, stone, bread
    assert strings == whole_answers(tokenizer)
    assert {tokenizer.decode(ids) for ids in strings.yes} == {"yes", " yes", "Yes", " Yes", "YES", " YES"}
    assert strings.longest > 1


class DeafTokenizer:
    """All words are one to it, and that one is special."""

    all_special_ids = (0,)

    def __len__(self) -> int:
        return 1

    def batch_decode(self, ids: list[list[int]]) -> list[str]:
        return ["?" for _ in ids]

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [0]


def test_a_tokenizer_that_cannot_tell_yes_from_no() -> None:
    with pytest.raises(UserError, match="Use another judge"):
        find_answers(DeafTokenizer())


class WordScorer:
    """p(yes) is higher where the prompt names yes first; NaN for prompts with a certain word."""

    max_tokens = 300

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.seen = tokenizer, 0

    def score(self, token_ids: Sequence[Sequence[int]], starts: Sequence[int]) -> list[float]:
        self.seen += len(token_ids)
        return [self._score(self.tokenizer.decode(ids)) for ids in token_ids]

    def _score(self, text: str) -> float:
        if "broken" in text:
            return math.nan
        formal, first = "formal" in text, "yes or no" in text
        return (0.5 if formal else 0.125) + (0.25 if first else 0.0) + (0.03 if "rains" in text else 0.0)


def test_both_orders_count_and_every_score_finds_its_place(judge_model: Path) -> None:
    scorer = WordScorer(load_tokenizer(judge_model))
    given = replace(PAIR, pair_id="given", judgements=(Judgement("formal_tone", 0.9, 0.1),))
    long, broken = replace(PAIR, chosen="zyx " * 400), replace(PAIR, rejected="broken")
    first, of_given, too_long, not_finite = judge_pairs([PAIR, given, long, broken], scorer, QUESTIONS)
    expected = (Judgement("formal_tone", 0.655, 0.625), Judgement("gives_a_reason", 0.28, 0.25))
    assert isinstance(first, Judged)
    assert first.judgements == expected
    assert first.order_gap == pytest.approx(0.25)
    assert isinstance(of_given, Judged)
    assert of_given.judgements == expected[1:]  # what came with the pair is not asked again
    assert scorer.seen == 8 + 4 + 8  # responses x questions x orders; nothing of what is too long
    assert isinstance(too_long, Rejection)
    assert too_long.stage == "score"
    assert "above 300: raise scoring.max_model_len" in too_long.reason
    assert isinstance(not_finite, Rejection)
    assert "finite" in not_finite.reason


def test_exchanging_the_orders_changes_nothing(judge_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = WordScorer(load_tokenizer(judge_model))
    before = judge_pairs([PAIR], scorer, QUESTIONS)
    monkeypatch.setattr(judge, "ORDERS", judge.ORDERS[::-1])
    assert judge_pairs([PAIR], scorer, QUESTIONS) == before


def test_what_is_asked() -> None:
    soft = {name for name, function in REGISTRY.items() if function.sides == "soft"}
    assert set(judge_questions(SynthesisConfig(), None)) == soft
    assert set(judge_questions(SynthesisConfig(family_weights={"soft_tone": 0.0}), None)) < soft
    assert judge_questions(SynthesisConfig(), ["formal_tone"]) == {"formal_tone": QUESTIONS["formal_tone"]}
    for names, message in ((["word_count"], "'word_count' is not a soft function"), (["formal_tonne"], "formal_tonne")):
        with pytest.raises(UserError, match=message):
            judge_questions(SynthesisConfig(), names)
    with pytest.raises(UserError, match="no soft functions to judge"):
        judge_questions(SynthesisConfig(functions=("word_count", "sentence_count")), None)


ASK = """
import json, sys
from mapl_ray.scoring import EngineOptions
from mapl_ray.scoring.engine import JudgeScorer
from mapl_ray.scoring.judge import whole_answers
spec = json.load(open(sys.argv[1]))
judge = JudgeScorer(EngineOptions(**spec["options"]))
ask = lambda prompts: judge.score(prompts, [len(ids) for ids in prompts])
made = {"tokens": ask(spec["prompts"]), "again": ask(spec["prompts"][::-1])[::-1], "max_tokens": judge.max_tokens}
judge.answers = whole_answers(judge.tokenizer)
made["strings"] = ask(spec["prompts"])
json.dump(made, open(sys.argv[2], "w"))
"""
TOLERANCE = 1e-5  # of p(yes), float32


@pytest.fixture(scope="module")
def loud_judge(judge_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a head twenty times as large: p(yes) is not all the same."""
    directory = tmp_path_factory.mktemp("loud") / "model"
    model = load_policy(judge_model, "float32")
    with torch.no_grad():
        model.lm_head.weight.mul_(20.0)
    model.save_pretrained(directory)
    load_tokenizer(judge_model).save_pretrained(directory)
    return directory


def expected_p(model: Any, prompt: Sequence[int], answers: judge.Answers) -> float:
    """Softmax over the vocabulary, token after token, in float32; all answers in one padded batch."""
    sides = (*answers.yes, *answers.no)
    rows = [[*prompt, *ids, *[0] * (answers.longest - len(ids))] for ids in sides]
    with torch.no_grad():
        steps = model(torch.tensor(rows)).logits[:, len(prompt) - 1 : -1].float().log_softmax(-1)
    p = [math.exp(float(row[range(len(ids)), list(ids)].sum())) for row, ids in zip(steps, sides, strict=True)]
    return sum(p[: len(answers.yes)]) / sum(p)


@pytest.mark.vllm
@pytest.mark.long
def test_the_engine_agrees_with_transformers(loud_judge: Path, tmp_path: Path) -> None:
    """By tokens and by strings, to 1e-5 (measured: 2e-7), whatever the order of the batch."""
    tokenizer = load_tokenizer(loud_judge)
    responses = ["Because it rains.", "No idea.", "First do this, then that. " * 6, "yes"]
    prompts = [ids for text in responses for ids in judge_prompts(text, [*QUESTIONS.values()], tokenizer)]
    options = EngineOptions.of(ScoringConfig(max_model_len=1024), str(loud_judge), None, "float32", 0)
    spec, out = tmp_path / "spec.json", tmp_path / "out.json"
    spec.write_text(json.dumps({"options": asdict(options), "prompts": prompts}))
    command = [sys.executable, "-c", ASK, str(spec), str(out)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    made = json.loads(out.read_text())
    model, apart = load_policy(loud_judge, "float32"), {}
    for kind, answers in (("tokens", find_answers(tokenizer)), ("strings", whole_answers(tokenizer))):
        wanted = [expected_p(model, prompt, answers) for prompt in prompts]
        assert max(wanted) - min(wanted) > 0.01  # a judge that says one thing to all would prove little
        apart[kind] = max(abs(a - b) for a, b in zip(made[kind], wanted, strict=True))
    apart["again"] = max(abs(a - b) for a, b in zip(made["tokens"], made["again"], strict=True))
    print(f"largest difference of p(yes): {apart}")
    assert max(apart.values()) < TOLERANCE
    assert all(0.0 <= p <= 1.0 for p in made["tokens"] + made["strings"])
    assert made["max_tokens"] == 1023
