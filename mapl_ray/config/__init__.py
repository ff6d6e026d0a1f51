"""Typed run configs: one YAML file describes a whole run, and dotted overrides change single values.

Unknown keys fail, all defaults are defined here, and everything that can be checked without a cluster is checked when
the config is read.
"""

from mapl_ray.config.data import DataConfig, MixSource, PairFormat, SynthesisConfig
from mapl_ray.config.evaluation import EvaluationConfig, EvaluationSet
from mapl_ray.config.loss_options import Method, ObjectiveConfig
from mapl_ray.config.pair_scoring import JudgeConfig, PairMarginConfig
from mapl_ray.config.path_text import expanded
from mapl_ray.config.run import RunConfig
from mapl_ray.config.run_file import Override, load_config, override_text, parse_config
from mapl_ray.config.space import Dimension, Scalar
from mapl_ray.config.stages import (
    Attention,
    ClusterConfig,
    Dtype,
    LevelWeights,
    LoraConfig,
    ModelConfig,
    ScoringConfig,
    TinyModelConfig,
    TrainConfig,
)
from mapl_ray.config.tune import TuneConfig

__all__ = [
    "Attention",
    "ClusterConfig",
    "DataConfig",
    "Dimension",
    "Dtype",
    "EvaluationConfig",
    "EvaluationSet",
    "JudgeConfig",
    "LevelWeights",
    "LoraConfig",
    "Method",
    "MixSource",
    "ModelConfig",
    "ObjectiveConfig",
    "Override",
    "PairFormat",
    "PairMarginConfig",
    "RunConfig",
    "Scalar",
    "ScoringConfig",
    "SynthesisConfig",
    "TinyModelConfig",
    "TrainConfig",
    "TuneConfig",
    "expanded",
    "load_config",
    "override_text",
    "parse_config",
]
