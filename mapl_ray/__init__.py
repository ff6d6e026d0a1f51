"""Multi-level Aware Preference Learning: the public API.

Names are imported on first use, so `import mapl_ray` loads no torch, transformers, Ray or DeepSpeed.

* pairs: `read_pairs` (files, folders, URIs, hub data sets), `read_rows` (rows in memory, a `datasets.Dataset`)
* groups: `synthesize`, `REGISTRY` of instruction functions, `export_rows` for other trainers
* tensors: `encode_group`, `collate`
* loss: `Objective`, over the outputs of `RewardScores` or `PolicyLogps`
* training: `MaplTrainer` (a subclass of `transformers.Trainer`); the `mapl` command trains on Ray and DeepSpeed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapl_ray.lazy import lazy_names

if TYPE_CHECKING:
    from mapl_ray.batches import Batch, EncodedGroup, RelationBatch, collate, encode_group, of_levels
    from mapl_ray.config import (
        DataConfig,
        LevelWeights,
        Method,
        ObjectiveConfig,
        RunConfig,
        SynthesisConfig,
        TinyModelConfig,
        TrainConfig,
        load_config,
    )
    from mapl_ray.data.records import (
        InstructionRecord,
        Level,
        Message,
        PreferencePair,
        Rejection,
        Relation,
        RelationGroup,
        Sequence,
    )
    from mapl_ray.errors import RunError, UserError
    from mapl_ray.instructions import REGISTRY, Instruction, InstructionFunction
    from mapl_ray.models import (
        PolicyLogps,
        RewardScores,
        build_tiny,
        load_policy,
        load_reward_model,
        load_tokenizer,
        prepare_for_trees,
    )
    from mapl_ray.objective import Objective, relation_loss
    from mapl_ray.preferences import read_pairs, read_rows
    from mapl_ray.synthesis import export_rows, synthesize
    from mapl_ray.training.hf_groups import groups_dataset
    from mapl_ray.training.hf_trainer import MaplTrainer

__all__ = [
    "REGISTRY",
    "Batch",
    "DataConfig",
    "EncodedGroup",
    "Instruction",
    "InstructionFunction",
    "InstructionRecord",
    "Level",
    "LevelWeights",
    "MaplTrainer",
    "Message",
    "Method",
    "Objective",
    "ObjectiveConfig",
    "PolicyLogps",
    "PreferencePair",
    "Rejection",
    "Relation",
    "RelationBatch",
    "RelationGroup",
    "RewardScores",
    "RunConfig",
    "RunError",
    "Sequence",
    "SynthesisConfig",
    "TinyModelConfig",
    "TrainConfig",
    "UserError",
    "build_tiny",
    "collate",
    "encode_group",
    "export_rows",
    "groups_dataset",
    "load_config",
    "load_policy",
    "load_reward_model",
    "load_tokenizer",
    "of_levels",
    "prepare_for_trees",
    "read_pairs",
    "read_rows",
    "relation_loss",
    "synthesize",
]

__getattr__ = lazy_names(__name__, __file__)
