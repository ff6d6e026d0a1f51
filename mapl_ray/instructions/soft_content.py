"""Soft functions on the content and form of a text."""

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
        "Make sure you include at least one concrete example.",
        "I want to see a concrete example in your reply.",
    ),
    (
        "Do not give any concrete example.",
        "Your response should not contain a concrete example.",
        "Do not illustrate the answer with any concrete examples.",
        "There must be no concrete example in the answer.",
        "Make sure you include no concrete example.",
        "I don't want to see any concrete example in your reply.",
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
        "Make sure you explain why.",
        "Back up what you say with at least one reason.",
    ),
    (
        "Do not give any reason for what you say.",
        "Your response should not justify its claims with any reason.",
        "Do not say why: the answer must not contain a reason.",
        "Do not support the answer with any reason.",
        "Make sure you do not explain why.",
        "Do not back up what you say with any reason.",
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
        "Make sure to tell a story or an anecdote.",
        "Please include a story or an anecdote in your reply.",
    ),
    (
        "Do not tell a story or an anecdote.",
        "Your response should not contain a story or an anecdote.",
        "Do not work any story or anecdote into the answer.",
        "There must be no story and no anecdote in the answer.",
        "Make sure not to tell a story or an anecdote.",
        "Please do not include any story or anecdote in your reply.",
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
        "Make sure to mention what you are unsure about.",
        "Please say that you are not certain about something.",
    ),
    (
        "Do not admit uncertainty about anything.",
        "Your response should not say that it is uncertain anywhere.",
        "Never say or hint that you are not sure.",
        "The answer must not admit to any uncertainty.",
        "Make sure not to mention anything you are unsure about.",
        "Please do not say that you are uncertain about anything.",
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
        "Make sure to close with some advice for the reader.",
        "Your last point should be advice to the reader.",
    ),
    (
        "Do not end with a piece of advice for the reader.",
        "Your response should not close with advice to the reader.",
        "Let the last thing the answer says be no piece of advice.",
        "Do not finish the answer by advising the reader.",
        "Make sure not to close with advice for the reader.",
        "Your last point should not be advice to the reader.",
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
        "Make sure to discuss only one aspect.",
        "Focus on one aspect of the topic throughout.",
    ),
    (
        "Do not stay on one single aspect of the topic.",
        "Your response should not deal with a single aspect only.",
        "Treat more than one aspect of the matter in the answer.",
        "The answer must not keep to one aspect from beginning to end.",
        "Make sure to discuss more than one aspect.",
        "Do not focus on one aspect of the topic throughout.",
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
        "Make sure to explain it step by step.",
        "Please answer one step after another.",
    ),
    (
        "Do not proceed step by step.",
        "Your response should not go through the matter step by step.",
        "Do not build the answer up in successive steps.",
        "The answer must not take the reader along one step at a time.",
        "Make sure not to explain it step by step.",
        "Please do not answer one step after another.",
    ),
)
