"""Instructions, the functions that write them, and the registry of these functions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from mapl_ray.data.records import InstructionRecord
from mapl_ray.errors import UserError
from mapl_ray.instructions.claims import Claims, all_of, present
from mapl_ray.instructions.features import Features, features_of
from mapl_ray.instructions.phrasing import seen_wordings
from mapl_ray.instructions.verdicts import Verdict

Args: TypeAlias = Mapping[str, Any]  # JSON-serializable
IfEval: TypeAlias = tuple[str, dict[str, Any]]  # instruction id and arguments of an IFEval checker
# two: works for both flags on nearly every text; one: ordinary text always violates it; soft: a judge decides.
Sides: TypeAlias = Literal["two", "one", "soft"]


@dataclass(frozen=True, slots=True)
class Case:
    """The texts that an instruction is drawn for: which must satisfy it and which must violate it."""

    flags: tuple[tuple[Features, bool], ...]
    context: tuple[Features, ...] = ()  # texts on the same topic, as a source of plausible words
    # Digest of a text -> soft function -> the judge's p(yes); without texts that were not judged with confidence.
    judgements: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    prompt: Features | None = None  # the prompt if known: instructions may refer to it

    @property
    def satisfied(self) -> list[Features]:
        """The texts that must satisfy the instruction."""
        return [text for text, flag in self.flags if flag]

    @property
    def violated(self) -> list[Features]:
        """The texts that must violate the instruction."""
        return [text for text, flag in self.flags if not flag]

    @property
    def opposite(self) -> Case:
        """The same texts with every flag inverted."""
        flags = tuple((text, not flag) for text, flag in self.flags)
        return replace(self, flags=flags)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its text and the arguments of its checker."""

    name: str  # name of the function that wrote it
    family: str
    args: Args
    text: str

    def check(self, response: str | Features) -> bool:
        """Whether the response satisfies the instruction."""
        return lookup(self.name).check(features_of(response), self.args)

    def verdict(self, response: str | Features) -> bool | None:
        """True if the response satisfies every reasonable reading, False if it violates every one, else None.

        `check` is one of the readings, so a verdict other than None equals that of `check`.
        """
        return lookup(self.name).verdict(features_of(response), self.args)

    def to_ifeval(self) -> IfEval | None:
        """IFEval's id and arguments for exactly this instruction, or None if its checker counts differently."""
        ifeval = lookup(self.name).ifeval
        return None if ifeval is None else ifeval(self.args)

    def to_record(self) -> InstructionRecord:
        """The record to store."""
        return InstructionRecord(self.name, self.text, dict(self.args))

    @classmethod
    def from_record(cls, record: InstructionRecord) -> Instruction:
        """Rebuild a stored instruction; raises `UserError` for an unknown name or invalid arguments."""
        function = lookup(record.name)
        instruction = cls(record.name, function.family, dict(record.args), record.text)
        try:
            function.validate_args(instruction.args)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"instruction {record.name!r}: arguments {dict(record.args)!r} are not valid for this function "
                f"({error!r}). Run `mapl synthesize` again on the preference data."
            ) from None
        return instruction


@dataclass(frozen=True, slots=True)
class InstructionFunction:
    """A function of the set G0: writes an instruction that a response satisfies or violates, as requested."""

    name: str
    family: str
    quantity: str  # the count it restricts: a prompt never has two instructions on the same count
    draw: Callable[[Case, random.Random], Args | None]
    check: Callable[[Features, Args], bool]  # the documented reading; also that of IFEval or IFBench where mapped
    phrasings: Callable[[Args], Sequence[str]]  # all wordings for these arguments; the number does not depend on them
    ifeval: Callable[[Args], IfEval | None] | None = None
    # Claims of the arguments (`claims.py`); without it, the instruction does not affect others.
    claims: Callable[[Args], Claims] | None = None
    size: bool = False  # a measure that grows with the text's length
    sides: Sides = "two"
    question: str | None = None  # soft functions: the judge's yes/no question about one response
    # Verdict that the other reasonable readings agree on, None if they differ; without it, `check` is the only reading.
    readings: Callable[[Features, Args], Verdict] | None = None
    # `readings` includes the reading of `check`, and `draw` uses it: what `draw` returns needs no further check.
    proven: bool = False
    # The instruction is about words: no verdict and no instruction for texts in scripts without spaces between words.
    spaced: bool = False
    validate: Callable[[Args], object] | None = None  # see `validate_args`; None: checks an empty text

    def verdict(self, text: Features, args: Args) -> Verdict:
        """The verdict of `check` if all readings agree with it, else None."""
        if self.spaced and not text.spaced:
            return None
        if self.proven and self.readings is not None:
            return self.readings(text, args)
        documented = self.check(text, args)
        if self.readings is None or self.readings(text, args) is documented:
            return documented
        return None

    def claims_of(self, args: Args) -> Claims:
        """The claims of an instruction with these arguments."""
        return self.claims(args) if self.claims is not None else all_of(present(self.name))

    def validate_args(self, args: Args) -> None:
        """Raises `KeyError`, `TypeError`, `AttributeError` or `ValueError` for invalid arguments.

        A function whose check does not accept every text needs its own `validate`.
        """
        if self.validate is not None:
            self.validate(args)
        else:
            self.check(features_of(""), args)

    def generate(
        self,
        response: str | Features,
        satisfied: bool,
        rng: random.Random,
        *,
        other: str | Features | None = None,
        prompt: str | Features | None = None,
    ) -> Instruction | None:
        """Write an instruction that `response` satisfies or violates; None if there is none.

        `other` is a text on the same topic (the other response of a pair): keywords that the response must lack come
        from it, and keywords that the response must have are absent from it. Functions that refer to the prompt need
        `prompt`, its text, and return None without it.
        """
        context = () if other is None else (features_of(other),)
        about = None if prompt is None else features_of(prompt)
        return self.generate_for(Case(((features_of(response), satisfied),), context, prompt=about), rng)

    def generate_for(
        self, case: Case, rng: random.Random, wording: int | None = None, seen_only: bool = False
    ) -> Instruction | None:
        """Write an instruction for several texts at once, each with its flag; `wording` selects the phrasing.

        `seen_only` excludes the phrasings that are held out of training (`held_out_wordings`). An instruction is only
        returned if the verdict on every text is not None and equals its flag.
        """
        if self.spaced:
            for text, _ in case.flags:
                if not text.spaced:
                    return None
        wording = rng.getrandbits(32) if wording is None else wording
        args = self.draw(case, rng)
        if args is None:
            return None
        if not self.proven:
            for text, flag in case.flags:
                if self.verdict(text, args) is not flag:
                    return None
        phrasings = self.phrasings(args)
        usable = seen_wordings(phrasings) if seen_only else range(len(phrasings))
        return Instruction(self.name, self.family, args, phrasings[usable[wording % len(usable)]])


_FUNCTIONS: dict[str, InstructionFunction] = {}
RETIRED = frozenset(("capitalized_word_count", "longest_line", "prompt_run", "unique_share"))
"""Names of removed functions, which older groups may contain."""

REGISTRY: Mapping[str, InstructionFunction] = MappingProxyType(_FUNCTIONS)
"""Every registered instruction function by name (docs/instructions.md). Read-only: use `register` to add to it."""


def register(function: InstructionFunction) -> InstructionFunction:
    """Add a function to the registry; raises `UserError` if the name is taken."""
    if function.name in _FUNCTIONS:
        raise UserError(f"instruction function {function.name!r} is already registered. Choose another name.")
    _FUNCTIONS[function.name] = function
    return function


@contextmanager
def all_or_none() -> Iterator[None]:
    """Unregister the functions that were registered inside if an error is raised, so that the import can be retried."""
    before = set(_FUNCTIONS)
    try:
        yield
    except BaseException:
        for name in set(_FUNCTIONS) - before:
            del _FUNCTIONS[name]
        raise


def lookup(name: str) -> InstructionFunction:
    """The function with that name; raises `UserError` with the known names if there is none."""
    try:
        return _FUNCTIONS[name]
    except KeyError:
        if name in RETIRED:
            raise UserError(
                f"instruction function {name!r} was removed, because no user would ask for it. Groups that contain it "
                "can't be checked anymore: run `mapl synthesize` again on the preference data."
            ) from None
        raise UserError(
            f"no instruction function {name!r}. Known: {', '.join(sorted(_FUNCTIONS))}. "
            "Your own functions must be imported before they are used: name their module in synthesis.modules."
        ) from None
