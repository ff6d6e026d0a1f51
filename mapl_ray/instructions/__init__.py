"""The function set G0: functions that write an instruction which a given response satisfies or violates."""

from mapl_ray.instructions import (
    address,
    case,
    copying,
    format,
    keywords,
    length,
    lines,
    lists,
    numbers,
    one_sided,
    paragraphs,
    position,
    punctuation,
    ratios,
    script,
    sentences,
    soft,
    start_end,
    variety,
    word_sets,
)
from mapl_ray.instructions.compatibility import compatible
from mapl_ray.instructions.features import Features, features_of
from mapl_ray.instructions.register import instruction_function
from mapl_ray.instructions.soft import soft_function
from mapl_ray.instructions.types import REGISTRY, Args, Case, Instruction, InstructionFunction, lookup

__all__ = [
    "REGISTRY",
    "Args",
    "Case",
    "Features",
    "Instruction",
    "InstructionFunction",
    "address",
    "case",
    "compatible",
    "copying",
    "features_of",
    "format",
    "instruction_function",
    "keywords",
    "length",
    "lines",
    "lists",
    "lookup",
    "numbers",
    "one_sided",
    "paragraphs",
    "position",
    "punctuation",
    "ratios",
    "script",
    "sentences",
    "soft",
    "soft_function",
    "start_end",
    "variety",
    "word_sets",
]
