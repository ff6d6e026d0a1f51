"""Soft functions on the tone and audience of a text."""

from __future__ import annotations

from mapl_ray.instructions.soft import soft_function

_TONE, _AUDIENCE = "soft_tone", "soft_audience"

formal_tone = soft_function(
    "formal_tone",
    _TONE,
    "Is the response written in a formal tone?",
    (
        "Use a formal tone.",
        "Write the answer in a formal tone.",
        "Keep the tone of your response formal.",
        "The answer should sound formal.",
        "Make sure your tone is formal.",
        "Please answer in a formal tone.",
    ),
    (
        "Do not use a formal tone.",
        "Do not write the answer in a formal tone.",
        "Keep the tone of your response from being formal.",
        "The answer should not sound formal.",
        "Make sure your tone is not formal.",
        "Please do not answer in a formal tone.",
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
        "Make sure your tone is casual.",
        "Please answer in a casual, informal way.",
    ),
    (
        "Do not use an informal, casual tone.",
        "Do not write the answer the way people chat, in an informal tone.",
        "Keep the tone of your response from being casual or informal.",
        "The answer should not sound casual.",
        "Make sure your tone is not casual.",
        "Please do not answer in a casual, informal way.",
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
        "Make sure your tone is warm and friendly.",
        "Please answer in a friendly way.",
    ),
    (
        "Do not use a warm and friendly tone.",
        "Do not let the answer sound friendly.",
        "Do not be friendly to the reader in your response.",
        "Your response should not come across as warm and friendly.",
        "Make sure your tone is not warm and friendly.",
        "Please do not answer in a friendly way.",
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
        "Make sure to remain neutral and unemotional.",
        "Please answer without taking a side or showing emotion.",
    ),
    (
        "Do not stay neutral: take a side or show emotion.",
        "Write an answer that is not neutral: one that takes a side or shows emotion.",
        "Your response should not be neutral; take a side or show emotion.",
        "Do not keep the answer neutral in stance and in emotion.",
        "Make sure not to remain neutral and unemotional.",
        "Please take a side or show emotion in your answer.",
    ),
    against=("friendly_tone", "persuasive"),
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
        "Make sure your answer tries to convince the reader.",
        "Please write to persuade the reader.",
    ),
    (
        "Do not be persuasive: do not try to convince the reader.",
        "Write an answer that does not try to persuade the reader.",
        "Your response should not try to win the reader over.",
        "Do not make the answer a persuasive one.",
        "Make sure your answer does not try to convince the reader.",
        "Please do not write to persuade the reader.",
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
        "Make sure a child of eight could follow your answer.",
        "Please answer so that an eight-year-old understands it.",
    ),
    (
        "Do not write so that a child of about eight can understand it.",
        "Do not explain it as you would to an eight-year-old child.",
        "Your response should not be easy to follow for a child of eight.",
        "The answer should not suit a reader who is eight years old.",
        "Make sure your answer is not aimed at a child of eight.",
        "Please do not answer at the level of an eight-year-old.",
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
        "Make sure your answer is aimed at experts in the field.",
        "Please write for readers who are experts.",
    ),
    (
        "Do not write for an expert in the field.",
        "Do not answer as you would to a specialist in the field.",
        "Your response should not address a reader with expert knowledge.",
        "The answer should not be on the level of an expert.",
        "Make sure your answer is not aimed at experts in the field.",
        "Please do not write for readers who are experts.",
    ),
    quantity="audience",
)
