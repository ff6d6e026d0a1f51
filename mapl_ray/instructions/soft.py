"""Soft functions: what no rule can tell of a text. A judge model answers a question about each response, yes or no.

Its p(yes) comes with the pair (`PreferencePair.judgements`); here it is only used. An instruction's arguments hold
p(yes) of the texts it was drawn for, by their digest, so that the stored record alone tells the truth about them:

    {"use": true, "judged": {"<digest>": 0.97, "<digest>": 0.04}}
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from mapl_ray.errors import UserError
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.types import Args, Case, InstructionFunction, register

_TONE, _AUDIENCE, _CONTENT, _FORM = "soft_tone", "soft_audience", "soft_content", "soft_form"


def soft_function(
    name: str,
    family: str,
    question: str,
    use: Sequence[str],
    avoid: Sequence[str],
    *,
    quantity: str | None = None,
    excludes: Iterable[str] = (),
) -> InstructionFunction:
    """Register a property that a judge tells; `use[i]` and `avoid[i]` are the two sides of one wording.

    `question` is about one response and answered yes where the property is there. Arguments: `use`, a bool, and
    `judged`, p(yes) by digest. Drawn for texts with a judgement alone; the check of any other text raises `UserError`.
    """

    def draw(case: Case, rng: random.Random) -> Args | None:
        judged: dict[str, float] = {}
        sides: set[bool] = set()
        for text, flag in case.flags:
            p = case.judgements.get(text.digest, {}).get(name)
            if p is None:
                return None
            judged[text.digest] = p
            sides.add((p >= 0.5) == flag)
        return {"use": sides.pop(), "judged": judged} if len(sides) == 1 else None

    return register(
        InstructionFunction(
            name=name,
            family=family,
            quantity=quantity or name,
            draw=draw,
            check=_check_of(name, question),
            phrasings=lambda args: use if args["use"] else avoid,
            excludes=frozenset(excludes),
            sides="soft",
            question=question,
            validate=_validate,
        )
    )


def _check_of(name: str, question: str) -> Callable[[Features, Args], bool]:
    def check(text: Features, args: Args) -> bool:
        p = args["judged"].get(text.digest)
        if p is None:
            raise UserError(
                f"instruction {name!r}: the response {text.text[:40]!r} (digest {text.digest}) was never judged; "
                f"judged were {', '.join(args['judged']) or 'none'}. Have a judge answer {question!r} for it first "
                "(PreferencePair.judgements), and draw the instruction anew."
            )
        return bool((p >= 0.5) == args["use"])

    return check


def _validate(args: Args) -> None:
    if set(args) != {"use", "judged"} or not isinstance(args["use"], bool):
        raise ValueError("expected use: true or false, and judged")
    for digest, p in args["judged"].items():
        if not isinstance(digest, str) or not isinstance(p, int | float) or not 0.0 <= p <= 1.0:
            raise ValueError(f"judged: expected a probability a digest, got {digest!r}: {p!r}")


formal_tone = soft_function(
    "formal_tone",
    _TONE,
    "Is the response written in a formal tone?",
    (
        "Use a formal tone.",
        "Write the answer in a formal tone.",
        "Keep the tone of your response formal.",
        "The answer should sound formal.",
    ),
    (
        "Do not use a formal tone.",
        "Do not write the answer in a formal tone.",
        "Keep the tone of your response from being formal.",
        "The answer should not sound formal.",
    ),
    quantity="formality",
)

informal_tone = soft_function(
    "informal_tone",
    _TONE,
    "Is the response written in an informal, casual tone?",
    (
        "Use an informal, casual tone.",
        "Write the answer the way people chat, in an informal tone.",
        "Keep the tone of your response casual and informal.",
        "The answer should sound casual.",
    ),
    (
        "Do not use an informal, casual tone.",
        "Do not write the answer the way people chat, in an informal tone.",
        "Keep the tone of your response from being casual or informal.",
        "The answer should not sound casual.",
    ),
    quantity="formality",
)

friendly_tone = soft_function(
    "friendly_tone",
    _TONE,
    "Is the tone of the response warm and friendly?",
    (
        "Use a warm and friendly tone.",
        "Let the answer sound friendly.",
        "Be friendly to the reader in your response.",
        "Your response should come across as warm and friendly.",
    ),
    (
        "Do not use a warm and friendly tone.",
        "Do not let the answer sound friendly.",
        "Do not be friendly to the reader in your response.",
        "Your response should not come across as warm and friendly.",
    ),
)

neutral_tone = soft_function(
    "neutral_tone",
    _TONE,
    "Is the response neutral, without taking sides or showing emotion?",
    (
        "Stay neutral: take no side and show no emotion.",
        "Write a neutral answer that takes no side and shows no emotion.",
        "Your response should be neutral, without sides or emotion.",
        "Keep the answer neutral in stance and in emotion.",
    ),
    (
        "Do not stay neutral: take a side or show emotion.",
        "Write an answer that is not neutral: one that takes a side or shows emotion.",
        "Your response should not be neutral; take a side or show emotion.",
        "Do not keep the answer neutral in stance and in emotion.",
    ),
    excludes=("friendly_tone", "persuasive"),
)

persuasive = soft_function(
    "persuasive",
    _TONE,
    "Does the response try to persuade the reader of something?",
    (
        "Be persuasive: try to convince the reader.",
        "Write an answer that tries to persuade the reader.",
        "Your response should try to win the reader over.",
        "Make the answer a persuasive one.",
    ),
    (
        "Do not be persuasive: do not try to convince the reader.",
        "Write an answer that does not try to persuade the reader.",
        "Your response should not try to win the reader over.",
        "Do not make the answer a persuasive one.",
    ),
)

for_a_child = soft_function(
    "for_a_child",
    _AUDIENCE,
    "Is the response written so that a child of about eight can understand it?",
    (
        "Write so that a child of about eight can understand it.",
        "Explain it as you would to an eight-year-old child.",
        "Your response should be easy to follow for a child of eight.",
        "The answer should suit a reader who is eight years old.",
    ),
    (
        "Do not write so that a child of about eight can understand it.",
        "Do not explain it as you would to an eight-year-old child.",
        "Your response should not be easy to follow for a child of eight.",
        "The answer should not suit a reader who is eight years old.",
    ),
    quantity="audience",
)

for_an_expert = soft_function(
    "for_an_expert",
    _AUDIENCE,
    "Is the response written for an expert in the field?",
    (
        "Write for an expert in the field.",
        "Answer as you would to a specialist in the field.",
        "Your response should address a reader with expert knowledge.",
        "The answer should be on the level of an expert.",
    ),
    (
        "Do not write for an expert in the field.",
        "Do not answer as you would to a specialist in the field.",
        "Your response should not address a reader with expert knowledge.",
        "The answer should not be on the level of an expert.",
    ),
    quantity="audience",
)

gives_an_example = soft_function(
    "gives_an_example",
    _CONTENT,
    "Does the response give at least one concrete example?",
    (
        "Give at least one concrete example.",
        "Your response should contain a concrete example.",
        "Illustrate the answer with one or more concrete examples.",
        "There must be a concrete example in the answer.",
    ),
    (
        "Do not give any concrete example.",
        "Your response should not contain a concrete example.",
        "Do not illustrate the answer with any concrete examples.",
        "There must be no concrete example in the answer.",
    ),
)

gives_a_reason = soft_function(
    "gives_a_reason",
    _CONTENT,
    "Does the response give a reason for what it says?",
    (
        "Give a reason for what you say.",
        "Your response should justify its claims with at least one reason.",
        "Say why: the answer must contain a reason.",
        "Support the answer with a reason.",
    ),
    (
        "Do not give any reason for what you say.",
        "Your response should not justify its claims with any reason.",
        "Do not say why: the answer must not contain a reason.",
        "Do not support the answer with any reason.",
    ),
)

tells_a_story = soft_function(
    "tells_a_story",
    _CONTENT,
    "Does the response tell a story or an anecdote?",
    (
        "Tell a story or an anecdote.",
        "Your response should contain a story or an anecdote.",
        "Work a short story or anecdote into the answer.",
        "There must be a story or an anecdote in the answer.",
    ),
    (
        "Do not tell a story or an anecdote.",
        "Your response should not contain a story or an anecdote.",
        "Do not work any story or anecdote into the answer.",
        "There must be no story and no anecdote in the answer.",
    ),
)

admits_uncertainty = soft_function(
    "admits_uncertainty",
    _CONTENT,
    "Does the response admit that it is uncertain about something?",
    (
        "Admit uncertainty about something.",
        "Your response should say where it is not certain.",
        "Make clear at least once that you are not sure.",
        "The answer must admit to some uncertainty.",
    ),
    (
        "Do not admit uncertainty about anything.",
        "Your response should not say that it is uncertain anywhere.",
        "Never say or hint that you are not sure.",
        "The answer must not admit to any uncertainty.",
    ),
)

ends_with_advice = soft_function(
    "ends_with_advice",
    _FORM,
    "Does the response end with a piece of advice for the reader?",
    (
        "End with a piece of advice for the reader.",
        "Your response should close with advice to the reader.",
        "Let the last thing the answer says be a piece of advice.",
        "Finish the answer by advising the reader.",
    ),
    (
        "Do not end with a piece of advice for the reader.",
        "Your response should not close with advice to the reader.",
        "Let the last thing the answer says be no piece of advice.",
        "Do not finish the answer by advising the reader.",
    ),
)

stays_on_one_aspect = soft_function(
    "stays_on_one_aspect",
    _FORM,
    "Does the response stay on one single aspect of the topic?",
    (
        "Stay on one single aspect of the topic.",
        "Your response should deal with a single aspect only.",
        "Treat just one aspect of the matter in the answer.",
        "The answer must keep to one aspect from beginning to end.",
    ),
    (
        "Do not stay on one single aspect of the topic.",
        "Your response should not deal with a single aspect only.",
        "Treat more than one aspect of the matter in the answer.",
        "The answer must not keep to one aspect from beginning to end.",
    ),
)

step_by_step = soft_function(
    "step_by_step",
    _FORM,
    "Does the response proceed step by step?",
    (
        "Proceed step by step.",
        "Your response should go through the matter step by step.",
        "Build the answer up in successive steps.",
        "The answer must take the reader along one step at a time.",
    ),
    (
        "Do not proceed step by step.",
        "Your response should not go through the matter step by step.",
        "Do not build the answer up in successive steps.",
        "The answer must not take the reader along one step at a time.",
    ),
)
