"""Dimensions of a search space: one of six kinds for each dotted config name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_serializer, model_validator

from mapl_ray.config.field_types import Section
from mapl_ray.config.strict_yaml import as_number

Scalar = bool | int | float | str | None
Kind = Literal["uniform", "loguniform", "quniform", "randint", "choice", "grid"]
KINDS: tuple[Kind, ...] = ("uniform", "loguniform", "quniform", "randint", "choice", "grid")
_SHAPES = (
    "{uniform: [low, high]}, {loguniform: [low, high]}, {quniform: [low, high, step]}, {randint: [low, high]}, "
    "{choice: [...]} or {grid: [...]}"
)


class Dimension(Section):
    """One dimension of a search space. Exactly one kind is set."""

    uniform: tuple[float, float] | None = None  # low <= v <= high
    loguniform: tuple[float, float] | None = None  # the same, log v uniform; low > 0
    quniform: tuple[float, float, float] | None = None  # low, high, step: low, low + step, ... up to high
    randint: tuple[int, int] | None = None  # low <= v < high, as in Ray Tune
    choice: tuple[Scalar, ...] | None = Field(default=None, min_length=1)  # one of these values, drawn uniformly
    grid: tuple[Scalar, ...] | None = Field(default=None, min_length=1)  # each of these values

    @property
    def kind(self) -> Kind:
        """The kind that is set."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def given(self) -> tuple[Any, ...]:
        """The numbers or values of that kind."""
        values: tuple[Any, ...] = getattr(self, self.kind)
        return values

    @property
    def values(self) -> tuple[Scalar, ...] | None:
        """All values of a `choice` or `grid`; None for a range."""
        return self.given if self.kind in ("choice", "grid") else None

    @property
    def size(self) -> int | None:
        """Number of values; None for a range of real numbers."""
        if self.values is not None:
            return len(self.values)
        if self.randint is not None:
            return self.randint[1] - self.randint[0]
        return self.steps + 1 if self.quniform is not None else None

    def value_at(self, index: int) -> Scalar:
        """The value at an index from 0 to `size` - 1."""
        if self.values is not None:
            return self.values[index]
        return self.randint[0] + index if self.randint is not None else self.at(index)

    @property
    def steps(self) -> int:
        """Number of steps between the ends of a `quniform`."""
        low, high, step = self.given
        between: float = (high - low) / step
        return math.floor(between + 1e-9)

    @property
    def probes(self) -> tuple[Scalar, ...]:
        """Values to validate: the ends of a range and a non-integer between them; all values of a choice or grid."""
        if self.values is not None:
            return self.values
        low, high = self.given[:2]
        if self.kind == "randint":
            return low, high - 1
        if self.kind == "quniform":
            return low, self.at(1), self.at(self.steps)
        return low, low + (high - low) / math.e, high

    def at(self, index: int) -> float:
        """The value of a `quniform` after `index` steps, rounded to 12 decimals."""
        low, _, step = self.given
        return float(round(low + index * step, 12))

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        # YAML 1.1 reads `5e-6` as text. Ranges would parse it as a number, but choices would keep the text.
        if isinstance(value, Mapping):
            return {
                kind: [as_number(one) for one in given] if isinstance(given, list) else given
                for kind, given in value.items()
            }
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"expected one of {_SHAPES}, got {', '.join(kinds) or 'none'}")
        if self.values is not None:
            if len({(type(value), value) for value in self.values}) < len(self.values):
                raise ValueError(f"{self.kind}={list(self.values)}: a value occurs twice")
            return self
        low, high = self.given[:2]
        if not all(math.isfinite(number) for number in self.given) or not low < high:
            raise ValueError(f"{self.kind}={list(self.given)}: expected finite numbers with low < high")
        if self.kind == "loguniform" and low <= 0:
            raise ValueError(f"loguniform={list(self.given)}: expected 0 < low < high")
        if self.quniform is not None and not 0 < self.quniform[2] <= high - low:
            raise ValueError(f"quniform={list(self.given)}: expected 0 < step <= high - low")
        return self

    @model_serializer
    def _plain(self) -> dict[str, Any]:
        return {self.kind: list(self.given)}


def flattened(space: Any) -> Any:
    """Flatten nested sections to one level of dotted names. Both forms are valid; overrides create nested sections.

    Raises `ValueError` for a value that is no dimension. Anything but a mapping is returned for pydantic to reject.
    """
    if not isinstance(space, Mapping):
        return space
    found: dict[str, Any] = {}
    for name, value in space.items():
        if isinstance(value, Dimension) or (isinstance(value, Mapping) and set(value) & set(KINDS)):
            inner = {str(name): value}
        elif isinstance(value, Mapping) and value:
            inner = {f"{name}.{key}": item for key, item in flattened(value).items()}
        else:
            raise ValueError(f"{name}={value!r}: expected {_SHAPES}")
        if twice := set(inner) & set(found):
            raise ValueError(f"{min(twice)} is set twice: remove one of them")
        found |= inner
    return found
