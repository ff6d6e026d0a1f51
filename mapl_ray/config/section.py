"""What every section of a config is: frozen, and without keys that nobody knows."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a run config."""

    model_config = ConfigDict(extra="forbid", frozen=True)
