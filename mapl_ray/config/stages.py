"""Models, scoring, training, cluster."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from mapl_ray.config.objective import ObjectiveConfig
from mapl_ray.config.pair_scoring import JudgeConfig, PairMarginConfig
from mapl_ray.config.path_text import PathText
from mapl_ray.config.section import Section
from mapl_ray.records import LEVEL_FAMILIES

Attention = Literal["auto", "flex", "varlen", "dense", "branches"]


class TinyModelConfig(Section):
    """A small Llama with a byte-level BPE tokenizer, built from the run's own texts: no hub needed."""

    vocab_size: int = Field(default=2000, ge=300)
    hidden_size: int = Field(default=128, ge=8)
    num_layers: int = Field(default=4, ge=1)
    num_heads: int = Field(default=4, ge=1)
    max_position_embeddings: int = Field(default=4096, ge=64)

    @property
    def most_parameters(self) -> int:
        """Llama with an MLP of at most four times the hidden size: 4 h^2 for attention, 3 * 4 h^2 for the MLP."""
        return 2 * self.vocab_size * self.hidden_size + self.num_layers * 16 * self.hidden_size**2

    @model_validator(mode="after")
    def _head_size(self) -> Self:
        # vLLM's CPU attention has kernels for heads of 32, 64, 96, ... alone.
        if self.hidden_size % (32 * self.num_heads):
            raise ValueError(
                f"hidden_size={self.hidden_size} and num_heads={self.num_heads}: "
                f"expected a multiple of 32 * num_heads = {32 * self.num_heads}"
            )
        return self


class ModelConfig(Section):
    """The base model: a directory, a hub name, `smollm2-135m` (SmolLM2-135M-Instruct, from PyPI), or `tiny`, built from
    the pairs."""

    name_or_path: PathText = "tiny"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    tiny: TinyModelConfig = TinyModelConfig()


class ScoringConfig(Section):
    """vLLM actors: which columns to fill, and what one engine takes."""

    ref_logps: bool = True  # log-probabilities of every sequence under the policy
    ref_model: PathText | None = None  # the policy that gives ref_logps; None: the one that is trained
    ref_model_revision: str | None = None
    lora: PathText | None = None  # a PEFT adapter's directory, laid over the policy that gives ref_logps
    reward_model: PathText | None = None  # fill `rewards` with this model
    reward_model_revision: str | None = None
    num_engines: int = Field(default=1, ge=1)
    concurrency: tuple[int, int] | None = None  # [min, max] engines, as work and cluster allow; instead of num_engines
    tensor_parallel_size: int = Field(default=1, ge=1)
    pipeline_parallel_size: int = Field(default=1, ge=1)
    cpus_per_engine: int = Field(default=1, ge=1)
    gpus_per_engine: int = Field(default=0, ge=0)
    kv_cache_gib: int = Field(default=1, ge=1)  # CPU engines
    gpu_memory_utilization: float = Field(default=0.85, gt=0.0, le=1.0)
    max_model_len: int = Field(default=4096, ge=16)
    batch_groups: int = Field(default=64, ge=1)  # groups handed to the engine at once
    prefix_caching: bool = True  # of rewards: sequences of a group share the tokens they begin with
    chunked_prefill: bool | None = None  # None: as vLLM finds right for the model
    max_num_batched_tokens: int | None = Field(default=None, ge=16)  # of one engine step; None: vLLM's own

    # Of the original pairs, before synthesis (docs/scoring.md):
    judge: JudgeConfig = JudgeConfig()
    pair_reward_model: PathText | None = None
    pair_reward_model_revision: str | None = None
    pair_margin: PairMarginConfig = PairMarginConfig()

    @property
    def scores_pairs(self) -> bool:
        """Whether engines see the pairs before synthesis does."""
        return self.judge.model is not None or self.pair_reward_model is not None

    @property
    def engines(self) -> tuple[int, int]:
        """Fewest and most engines at once."""
        return self.concurrency or (self.num_engines, self.num_engines)

    @model_validator(mode="after")
    def _engines(self) -> Self:
        low, high = self.engines
        ranks = self.tensor_parallel_size * self.pipeline_parallel_size
        if not 1 <= low <= high:
            raise ValueError(f"concurrency={[low, high]}: expected [min, max] with 1 <= min <= max")
        if self.concurrency is not None and self.num_engines != 1:
            raise ValueError(f"num_engines={self.num_engines} and concurrency={[low, high]}: set one of them")
        if 0 < self.gpus_per_engine < ranks:
            raise ValueError(
                f"gpus_per_engine={self.gpus_per_engine}: expected at least tensor_parallel_size * "
                f"pipeline_parallel_size = {ranks}"
            )
        if self.gpus_per_engine == 0 and self.pipeline_parallel_size > 1:
            # Tried: the engine starts, and its second rank dies of the first batch.
            raise ValueError(
                f"pipeline_parallel_size={self.pipeline_parallel_size} on CPUs (gpus_per_engine=0): vLLM 0.32 does not "
                "score so. Set tensor_parallel_size instead, or gpus_per_engine"
            )
        if self.chunked_prefill is False and (self.max_num_batched_tokens or self.max_model_len) < self.max_model_len:
            raise ValueError(
                f"max_num_batched_tokens={self.max_num_batched_tokens} with chunked_prefill=false: "
                f"expected at least max_model_len = {self.max_model_len}"
            )
        if not self.ref_logps and (self.lora or self.ref_model):
            raise ValueError("ref_model and lora are of ref_logps: set ref_logps=true, or leave them out")
        return self

    @model_validator(mode="after")
    def _pair_rewards(self) -> Self:
        if self.pair_margin.used and self.pair_reward_model is None:
            raise ValueError("pair_margin without pair_reward_model: name the reward model that gives the margins")
        return self


class LevelWeights(Section):
    """Weights of the levels: the loss is `L_pref + lambda_intra * L_intra + lambda_inter * L_inter`."""

    lambda_intra: float = Field(default=1.0, ge=0.0)
    lambda_inter: float = Field(default=1.0, ge=0.0)

    def of(self, family: str) -> float:
        """The weight of a level family (`pref`, `intra`, `inter`)."""
        return {"pref": 1.0, "intra": self.lambda_intra, "inter": self.lambda_inter}[family]

    @property
    def families(self) -> frozenset[str]:
        """The level families whose weight is not 0."""
        return frozenset(family for family in LEVEL_FAMILIES if self.of(family))


class LoraConfig(Section):
    """Adapters in place of whole weights (Hu et al. 2022); the head of a reward model is trained as a whole."""

    r: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0.0)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    quantize: Literal["4bit"] | None = None  # the base model's weights, with bitsandbytes (QLoRA)


class TrainConfig(Section):
    """One training run, reward model or DPO. Sizes are in groups: one original pair is one group."""

    weights: LevelWeights = LevelWeights()
    objective: ObjectiveConfig = ObjectiveConfig()
    beta: float = Field(default=0.1, gt=0.0)  # DPO
    learning_rate: float = Field(default=5e-6, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    warmup_ratio: float = Field(default=0.05, ge=0.0, lt=1.0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    epochs: int = Field(default=1, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    micro_batch_size: int = Field(default=4, ge=1)  # groups on one worker at once
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    lora: LoraConfig | None = None  # None: all weights are trained
    reference: Literal["auto", "scored", "frozen", "adapter"] = "auto"  # DPO's; auto: the cheapest there is
    batching: Literal["tree", "padded"] = "tree"
    attention: Attention = "auto"  # of trees; auto: flex on a GPU, parts of trees on a CPU
    # Token budget of a row of trees; None: all of a micro-batch (with a dense mask: the longest tree's tokens).
    row_tokens: int | None = Field(default=None, ge=1)
    max_sequence_tokens: int = Field(default=2048, ge=16)
    truncate_prompt: Literal["refuse", "left"] = "refuse"  # groups above it: left out, or prompts cut on the left
    # Micro-batches collated ahead in a thread, 0 for none; None: those of a step on a GPU, none without.
    prefetch: int | None = Field(default=None, ge=0)
    zero_stage: Literal[0, 1, 2, 3] = 2
    offload: Literal["none", "optimizer", "optimizer+parameters"] = "none"  # to the CPU's memory; from ZeRO-1 on, 3
    deepspeed_config: PathText | dict[str, Any] | None = None  # a DeepSpeed JSON file (or its content) laid over ours
    bf16: bool = False
    gradient_checkpointing: bool = False
    num_workers: int = Field(default=1, ge=1)
    # Elastic: as many workers as there is room for, never more than num_workers, and never fewer than this; as many
    # groups make a step in any case. None: num_workers or none at all.
    min_workers: int | None = Field(default=None, ge=1)
    worker_wait_seconds: float = Field(default=600.0, gt=0.0)  # elastic: how long to wait for the fewest, then give up
    cpus_per_worker: float = Field(default=1.0, gt=0.0)
    gpus_per_worker: float = Field(default=0.0, ge=0.0)
    # Where curves go, beside metrics.jsonl; wandb and mlflow must be installed.
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    eval_every_steps: int = Field(default=50, ge=1)
    checkpoint_every_steps: int = Field(default=50, ge=1)
    checkpoints_to_keep: int = Field(default=2, ge=1)
    best_by: Literal["pref_accuracy", "eval_loss"] | None = "pref_accuracy"  # what `best/` is chosen by, held out
    # Where checkpoints are there and none can be used: `restart` keeps them beside and begins at step 0.
    on_unusable_checkpoint: Literal["stop", "restart"] = "stop"
    max_failures: int = Field(default=1, ge=0)  # restarts after a worker dies; a non-finite loss never restarts
    seed: int = 0

    @property
    def fewest_workers(self) -> int:
        """That can train."""
        return self.num_workers if self.min_workers is None else self.min_workers

    @model_validator(mode="after")
    def _offloadable(self) -> Self:
        needs = {"none": 0, "optimizer": 1, "optimizer+parameters": 3}[self.offload]
        if self.zero_stage < needs:
            raise ValueError(f"offload={self.offload} needs zero_stage >= {needs}, got zero_stage={self.zero_stage}")
        return self

    @model_validator(mode="after")
    def _tree_attention(self) -> Self:
        if self.attention != "auto" and self.batching == "padded":
            raise ValueError(f"attention={self.attention} is for batching=tree; leave it out, or set batching=tree")
        if self.attention in ("flex", "varlen") and not self.gpus_per_worker:
            raise ValueError(
                f"attention={self.attention} runs on GPUs alone, and gpus_per_worker=0; set gpus_per_worker, or "
                "attention=auto"
            )
        if self.attention == "varlen" and not self.bf16:
            raise ValueError("attention=varlen needs bfloat16; set bf16=true, or attention=auto")
        return self

    @model_validator(mode="after")
    def _elastic(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(
                f"min_workers={self.min_workers}: expected at most num_workers={self.num_workers}, which is the most"
            )
        return self

    @model_validator(mode="after")
    def _quantizable(self) -> Self:
        if self.lora is not None and self.lora.quantize is not None and self.zero_stage == 3:
            raise ValueError(f"lora.quantize={self.lora.quantize}: ZeRO-3 can't cut 4-bit weights; set zero_stage=2")
        return self

    @model_validator(mode="after")
    def _has_adapter(self) -> Self:
        if self.reference == "adapter" and self.lora is None:
            raise ValueError("reference=adapter needs lora: without an adapter there is nothing to switch off")
        return self


class ClusterConfig(Section):
    """Where Ray runs. Without an address, a private single-machine cluster is started and stopped."""

    address: str | None = None  # None: this machine; `auto`: the cluster this process is on; else host:port
    num_cpus: int | None = Field(default=None, ge=1)  # logical CPUs of a private cluster; None: as many as there are
    synthesis_workers: int | None = Field(default=None, ge=1)  # None: as many as there are CPUs
    wait_minutes: float = Field(default=30.0, gt=0.0)  # for a node, where none is left that has room for one worker
