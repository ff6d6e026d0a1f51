"""A part of groups as an evaluation takes it: nothing lost, nothing twice, and what is left out has its reason."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mapl_ray.data.group_columns import groups_to_table
from mapl_ray.data.records import GROUP_SCHEMA, RelationGroup
from mapl_ray.evaluation.checkpoints import Checkpoint
from mapl_ray.evaluation.evaluated import EVALUATED_SCHEMA, Encoders, evaluated_part
from mapl_ray.evaluation.rewards import implicit_rewards, model_rewards
from mapl_ray.objective import dpo_rewards


def test_every_group_and_variant_is_a_row_or_a_rejection(tiny_model: Path, grid_groups: Any) -> None:
    groups: list[RelationGroup] = grid_groups(5)
    groups[1] = replace(groups[1], responses=("river " * 300, "stone"))
    groups[3] = replace(groups[3], ref_logps=None)
    models = [Checkpoint(name, str(tiny_model), None, "rm") for name in ("a", "b")]
    encoders = Encoders.of(models, 256)
    assert (len(encoders.tokenizers), encoders.of_model) == (1, {"a": 0, "b": 0})
    kinds = ("order", "phrasing")
    made = evaluated_part(groups, encoders, kinds, 0)
    # A made-up function has no other wording, and one instruction no other order.
    assert made.table.num_rows + len(made.rejections) == 5 * (1 + len(kinds))
    assert made.table.column("pair_id").to_pylist() == [groups[n].pair_id for n in (0, 2, 3, 4)]
    assert made.table.column("of").to_pylist() == [0, 2, 3, 4]
    assert made.table.schema.equals(EVALUATED_SCHEMA)
    rows = made.table.select(GROUP_SCHEMA.names).to_pylist()
    assert rows == groups_to_table([groups[n] for n in (0, 2, 3, 4)]).to_pylist()
    counts = {"groups": 4, "too long": 1, "refused": 0, "without ref_logps": 1}
    assert {key: made.notes[key] for key in counts} == counts
    assert made.notes["first"].startswith(f"{groups[1].pair_id}: longest sequence has")
    assert Counter(one.stage for one in made.rejections) == {"tokenize": 1, "variant": 10}
    ids = [len(encoders.tokenizers[0].encode(text, add_special_tokens=False)) for text in groups[0].responses]
    ((chosen, rejected),) = made.table.column("response_tokens")[0].as_py()
    assert (chosen >= ids[0], rejected >= ids[1]) == (True, True)


def test_implicit_rewards_are_those_of_training() -> None:
    rng = np.random.default_rng(0)
    logps, ref = (rng.normal(-50.0, 9.0, 40).astype(np.float32) for _ in range(2))
    lengths = rng.integers(1, 60, 40).astype(np.float32)
    for of_sequences in (None, lengths):
        given = None if of_sequences is None else torch.from_numpy(of_sequences)
        expected = dpo_rewards(torch.from_numpy(logps), torch.from_numpy(ref), 0.1, given)
        assert implicit_rewards(logps, ref, 0.1, of_sequences).tolist() == expected.tolist()


def test_rewards_of_groups_in_memory(tiny_model: Path, tiny_reward_model: Path, grid_groups: Any) -> None:
    groups = grid_groups(3)
    sizes: dict[str, Any] = {"micro_batch_size": 2, "max_sequence_tokens": 256}
    rewards = model_rewards(groups, Checkpoint("rm", str(tiny_reward_model), None, "rm"), beta=1.0, **sizes)
    assert [len(some) for some in rewards] == [6, 6, 6]
    policy = Checkpoint("dpo", str(tiny_model), None, "dpo")
    low, high = (model_rewards(groups, policy, beta=beta, **sizes) for beta in (0.1, 0.2))
    np.testing.assert_allclose(2 * np.array(low), np.array(high), rtol=1e-6)
