"""`ColumnScorer`: the scores that a stage computes for every group, the model that computes them, their fingerprint.

`score` has one scorer per column, evaluation has one per model.
"""

from __future__ import annotations

from dataclasses import dataclass

from mapl_ray.batches import ENCODING
from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import fingerprint_of
from mapl_ray.errors import RunError
from mapl_ray.models import model_identity
from mapl_ray.scoring.journal import Outcome
from mapl_ray.scoring.options import EngineOptions, TreeOptions
from mapl_ray.scoring.score_groups import Column


@dataclass(frozen=True, slots=True)
class ColumnScorer:
    """A column and the engine, or the trainer's forward pass, that fills it."""

    column: Column
    options: EngineOptions | TreeOptions
    label: str = ""  # name in progress lines and errors; empty: the column
    whole: bool = False  # a group without scores is an error, not a rejection
    keep_stored: bool = False  # groups that already have `ref_logps` keep them

    @property
    def name(self) -> str:
        """The name in progress lines and errors."""
        return self.label or self.column

    @property
    def recipe(self) -> str:
        """Fingerprint of everything that decides the scores, except the groups."""
        options = self.options
        values = {
            "column": self.column,
            "model": model_identity(options.model, options.revision),
            "dtype": options.dtype,
            "encoding": ENCODING,
        }
        if isinstance(options, TreeOptions):
            values |= {"max_model_len": options.max_tokens, **options.recipe}
        else:
            values["max_model_len"] = options.max_model_len
        if self.keep_stored:
            values["keep_stored"] = True
        return fingerprint_of(values | ({"lora": model_identity(options.lora)} if options.lora else {}))

    def stored(self, group: RelationGroup) -> Outcome | None:
        """Scores that the group already has and keeps; None if they must be computed."""
        return group.ref_logps if self.keep_stored else None

    def check(self, group: RelationGroup, outcome: Outcome) -> None:
        """Raise `RunError` for a group without scores if `whole` is set."""
        if self.whole and isinstance(outcome, str):
            raise RunError(f"{self.name}, group {group.pair_id} of {group.source}: {outcome}")
