"""Which stored instructions are in a wording that training held out."""

from __future__ import annotations

from mapl_ray.instructions import REGISTRY
from mapl_ray.instructions.phrasing import held_out_wordings
from mapl_ray.records import InstructionRecord


def is_unseen_wording(record: InstructionRecord) -> bool:
    """Whether the text is a wording that `synthesis.held_out_phrasings` holds out; no for unknown functions."""
    function = REGISTRY.get(record.name)
    if function is None:
        return False
    phrasings = function.phrasings(record.args)
    return any(phrasings[index] == record.text for index in held_out_wordings(phrasings))
