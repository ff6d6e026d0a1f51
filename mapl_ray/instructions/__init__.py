"""The function set G0: functions that write an instruction which a given response satisfies or violates."""

from mapl_ray.instructions import (
    address,
    case,
    format,
    keywords,
    length,
    lists,
    numbers,
    paragraphs,
    punctuation,
    sentences,
    soft,
    start_end,
    variety,
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
    "features_of",
    "format",
    "instruction_function",
    "keywords",
    "length",
    "lists",
    "lookup",
    "numbers",
    "paragraphs",
    "punctuation",
    "sentences",
    "soft",
    "soft_function",
    "start_end",
    "variety",
]
