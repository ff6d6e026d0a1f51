"""Instructions, the functions that write them, and the registry that finds a stored instruction's function."""

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

Args: TypeAlias = Mapping[str, Any]  # JSON-able
IfEval: TypeAlias = tuple[str, dict[str, Any]]  # instruction id and arguments of an IFEval checker
# two: serves both flags on nearly every text; one: ordinary text only ever violates it; soft: a judge decides.
Sides: TypeAlias = Literal["two", "one", "soft"]


@dataclass(frozen=True, slots=True)
class Case:
    """What an instruction is asked for: which texts shall satisfy it and which shall not."""

    flags: tuple[tuple[Features, bool], ...]
    context: tuple[Features, ...] = ()  # texts on the same topic that plausible words may come from
    # Digest of a text -> soft function -> the judge's p(yes); nothing for texts that were not judged with confidence.
    judgements: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    prompt: Features | None = None  # where it is known: instructions may speak of it

    @property
    def satisfied(self) -> list[Features]:
        """The texts that shall satisfy."""
        return [text for text, flag in self.flags if flag]

    @property
    def violated(self) -> list[Features]:
        """The texts that shall violate."""
        return [text for text, flag in self.flags if not flag]

    @property
    def opposite(self) -> Case:
        """The same texts with every flag turned round."""
        flags = tuple((text, not flag) for text, flag in self.flags)
        return replace(self, flags=flags)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its wording, and the arguments its checker goes by."""

    name: str  # of the function that wrote it
    family: str
    args: Args
    text: str

    def check(self, response: str | Features) -> bool:
        """Whether the response does what the instruction says."""
        return lookup(self.name).check(features_of(response), self.args)

    def verdict(self, response: str | Features) -> bool | None:
        """True where the response satisfies every reasonable reading, False where it violates every one, else None.

        `check` is one of the readings: a verdict that is not None is that of `check`.
        """
        return lookup(self.name).verdict(features_of(response), self.args)

    def to_ifeval(self) -> IfEval | None:
        """IFEval's id and arguments for exactly this instruction, or None where its checker counts otherwise."""
        ifeval = lookup(self.name).ifeval
        return None if ifeval is None else ifeval(self.args)

    def to_record(self) -> InstructionRecord:
        """What is stored."""
        return InstructionRecord(self.name, self.text, dict(self.args))

    @classmethod
    def from_record(cls, record: InstructionRecord) -> Instruction:
        """The stored instruction again; raises `UserError` for an unknown name or arguments that are not its own."""
        function = lookup(record.name)
        instruction = cls(record.name, function.family, dict(record.args), record.text)
        try:
            function.validate_args(instruction.args)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"instruction {record.name!r}: arguments {dict(record.args)!r} are not this function's ({error!r})."
            ) from None
        return instruction


@dataclass(frozen=True, slots=True)
class InstructionFunction:
    """A function of the set G0: writes an instruction that a response satisfies or violates, as asked."""

    name: str
    family: str
    quantity: str  # the count it restricts: no two instructions on one count meet in a prompt
    draw: Callable[[Case, random.Random], Args | None]
    check: Callable[[Features, Args], bool]  # the documented reading, and that of IFEval or IFBench where mapped
    phrasings: Callable[[Args], Sequence[str]]  # all wordings of these arguments, as many for any arguments
    ifeval: Callable[[Args], IfEval | None] | None = None
    # What the arguments say of which counts (`claims.py`); without it, nothing that concerns other instructions.
    claims: Callable[[Args], Claims] | None = None
    size: bool = False  # a measure that grows with the text's length
    sides: Sides = "two"
    question: str | None = None  # soft functions: what a judge is asked of one response, to be answered yes or no
    # What the other reasonable readings agree on, None where they differ; without it, all readings are `check`.
    readings: Callable[[Features, Args], Verdict] | None = None
    # The readings are all of them, that of `check` too, and `draw` goes by them: nothing it draws needs another look.
    proven: bool = False
    # It speaks of words: no verdict on texts in scripts that put no spaces between them, and none is written for them.
    spaced: bool = False
    validate: Callable[[Args], object] | None = None  # see `validate_args`; None: checked on an empty text

    def verdict(self, text: Features, args: Args) -> Verdict:
        """The verdict of `check` where all readings agree with it, None where one does not."""
        if self.spaced and not text.spaced:
            return None
        if self.proven and self.readings is not None:
            return self.readings(text, args)
        documented = self.check(text, args)
        if self.readings is None or self.readings(text, args) is documented:
            return documented
        return None

    def claims_of(self, args: Args) -> Claims:
        """What an instruction of these arguments claims of a response."""
        return self.claims(args) if self.claims is not None else all_of(present(self.name))

    def validate_args(self, args: Args) -> None:
        """Raises `KeyError`, `TypeError`, `AttributeError` or `ValueError` for arguments that are not this function's.

        A check that can't be asked about any text at all needs a `validate` of its own.
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
        """An instruction that `response` satisfies or violates, or None where there is none.

        `other` is a text on the same topic (the other response of a pair): keywords that the response lacks come
        from it, and keywords that it holds are then such that `other` lacks. Functions that speak of the prompt need
        `prompt`, the text it is about, and give None without it.
        """
        context = () if other is None else (features_of(other),)
        about = None if prompt is None else features_of(prompt)
        return self.generate_for(Case(((features_of(response), satisfied),), context, prompt=about), rng)

    def generate_for(
        self, case: Case, rng: random.Random, wording: int | None = None, seen_only: bool = False
    ) -> Instruction | None:
        """An instruction for several texts at once, each with its flag; `wording` picks the phrasing.

        `seen_only` leaves out the phrasings that training can do without (`held_out_wordings`). An instruction is only
        handed out where the verdict on every text is decided and is its flag.
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
"""Names that older groups may hold."""

REGISTRY: Mapping[str, InstructionFunction] = MappingProxyType(_FUNCTIONS)
"""Every registered instruction function by its name (docs/instructions.md). Read-only: `register` adds to it."""


def register(function: InstructionFunction) -> InstructionFunction:
    """Add a function to the registry; raises `UserError` where the name is taken."""
    if function.name in _FUNCTIONS:
        raise UserError(f"instruction function {function.name!r} is registered already. Choose another name.")
    _FUNCTIONS[function.name] = function
    return function


@contextmanager
def all_or_none() -> Iterator[None]:
    """Functions registered inside stay only if nothing is raised: a module that breaks off can be imported again."""
    before = set(_FUNCTIONS)
    try:
        yield
    except BaseException:
        for name in set(_FUNCTIONS) - before:
            del _FUNCTIONS[name]
        raise


def lookup(name: str) -> InstructionFunction:
    """The function of that name; raises `UserError` with the known names."""
    try:
        return _FUNCTIONS[name]
    except KeyError:
        if name in RETIRED:
            raise UserError(
                f"instruction function {name!r} was removed: no user would ask for it. Groups that hold it can't be "
                "checked any more: run `mapl synthesize` again on the preference data."
            ) from None
        raise UserError(
            f"no instruction function {name!r}. Known: {', '.join(sorted(_FUNCTIONS))}. "
            "A function of your own must be imported before it is used: name its module in synthesis.modules."
        ) from None
