"""Soft functions: what a text holds, and how it is laid out."""

from __future__ import annotations

from mapl_ray.instructions.soft import soft_function

_CONTENT, _FORM = "soft_content", "soft_form"

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
