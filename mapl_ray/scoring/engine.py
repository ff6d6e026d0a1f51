"""Scorers with vLLM, one engine each, which is started once. No other module imports vllm."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mapl_ray.batches import end_of_turn, read_at
from mapl_ray.errors import RunError, first_line
from mapl_ray.model_copies import local_directory
from mapl_ray.models import load_tokenizer, read_config, verify_adapter, verify_model
from mapl_ray.progress import CountingBar, progress
from mapl_ray.scoring.judge import find_answers, p_yes
from mapl_ray.scoring.lora import LORA_RANKS, lora_rank
from mapl_ray.scoring.options import EngineOptions
from mapl_ray.scoring.protocol import Scorer

CPU_BLOCK_TOKENS = 32


class LogprobScorer:
    """log p(response | prompt) under a causal model, summed over response tokens, in nats.

    Prefix caching does not help here: a cached token has no logits, so in vLLM 0.32 a request with `prompt_logprobs`
    does not read the cache (`SamplingParams.skip_reading_prefix_cache`).
    """

    reads_cache = False

    def __init__(self, options: EngineOptions) -> None:
        """Start the engine. Raises `UserError` for a model without tokenizer, of the wrong kind, or with weights that
        do not match its config, and `RunError` if the engine does not start or fails on a single token."""
        self.options = options
        self.tokenizer = load_tokenizer(options.model, options.revision)
        # vLLM always generates at least one token.
        self.max_tokens = options.max_model_len - 1
        self._engine = _engine(options, "generate", self.reads_cache)
        self._adapter = _adapter(options)
        try_engine(self, options.model)

    def score(self, token_ids: Sequence[Sequence[int]], starts: Sequence[int]) -> list[float]:
        """One sum per sequence, as floats: vLLM's logprobs are nested objects, which are slow to pickle."""
        from vllm import SamplingParams

        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        outputs = self._engine.generate(_prompts(token_ids), sampling, use_tqdm=False, lora_request=self._adapter)
        return [
            sum(step[token].logprob for step, token in zip(out.prompt_logprobs[start:], ids[start:], strict=True))
            for out, ids, start in zip(outputs, token_ids, starts, strict=True)
        ]


class Generator(LogprobScorer):
    """Generates responses of a causal model with greedy decoding."""

    def generate(self, token_ids: Sequence[Sequence[int]], max_new_tokens: int) -> list[tuple[str, bool]]:
        """One response per prompt, and whether it was truncated at `max_new_tokens` or at the engine's length.

        Prompts have at most `max_tokens` tokens.
        """
        from vllm import SamplingParams

        sampling = [
            SamplingParams(
                max_tokens=min(max_new_tokens, self.max_tokens + 1 - len(ids)),
                temperature=0.0,
                stop_token_ids=[self.tokenizer.eos_token_id, end_of_turn(self.tokenizer)],
            )
            for ids in token_ids
        ]
        with progress("generate", len(token_ids), "responses") as work:
            shown = partial(CountingBar, work)
            outputs = self._engine.generate(_prompts(token_ids), sampling, use_tqdm=shown, lora_request=self._adapter)
        return [(out.outputs[0].text, out.outputs[0].finish_reason == "length") for out in outputs]

    def end(self) -> None:
        """Shut the engine down, so that this process can start another one. This one can't be used afterwards.

        Only for engines on CPUs with one rank: GPU memory is not freed until the process ends.
        """
        from vllm.distributed import cleanup_dist_env_and_memory

        self._engine.llm_engine.engine_core.shutdown()
        del self._engine
        cleanup_dist_env_and_memory()


class RewardScorer:
    """r(x, y) of a sequence classification model with one label: the raw logit of the last token."""

    def __init__(self, options: EngineOptions) -> None:
        """Raises as `LogprobScorer` does."""
        self.tokenizer = load_tokenizer(options.model, options.revision)
        self.max_tokens = options.max_model_len
        self._pad_token_id = read_config(options.model, options.revision).pad_token_id
        self.cached_tokens = 0  # tokens of the last batch that were read from the prefix cache
        self._engine = _engine(options, "pooling", reads_cache=True)
        try_engine(self, options.model)

    def score(self, token_ids: Sequence[Sequence[int]], starts: Sequence[int]) -> list[float]:
        """One logit per sequence, read at the token as in training (`batches.read_at`); `starts` is not used."""
        from vllm import PoolingParams

        # So that scores do not depend on earlier batches, a batch only reads its own tokens from the cache.
        self._engine.reset_prefix_cache()
        pooling = PoolingParams(use_activation=False)  # a sigmoid would squash the reward
        read = [read_at(ids, self._pad_token_id) for ids in token_ids]
        outputs = self._engine.classify(_prompts(read), pooling_params=pooling, use_tqdm=False)
        self.cached_tokens = sum(out.num_cached_tokens or 0 for out in outputs)
        return [float(out.outputs.probs[0]) for out in outputs]


class JudgeScorer(LogprobScorer):
    """p(yes) after a prompt under a causal model, normalized over yes and no (see `scoring.judge`)."""

    reads_cache = True

    def __init__(self, options: EngineOptions) -> None:
        """Raises as `LogprobScorer` does."""
        self.answers = find_answers(load_tokenizer(options.model, options.revision))
        super().__init__(options)
        self.max_tokens -= self.answers.longest - 1  # leaves room for answers of several tokens after the prompt

    def score(self, token_ids: Sequence[Sequence[int]], starts: Sequence[int]) -> list[float]:
        """One p(yes) per prompt, in [0, 1]; the answer starts at the prompt's end, so `starts` is not used."""
        answers = (*self.answers.yes, *self.answers.no)
        logps = self._next_token(token_ids) if self.answers.single else self._strings(token_ids)
        split = len(self.answers.yes)
        rows = [logps[i : i + len(answers)] for i in range(0, len(logps), len(answers))]
        return [p_yes(row[:split], row[split:]) for row in rows]

    def _next_token(self, token_ids: Sequence[Sequence[int]]) -> list[float]:
        """log p of every answer after every prompt, answers innermost. Unlike `prompt_logprobs` this uses the cache."""
        from vllm import SamplingParams

        wanted = [token for (token,) in (*self.answers.yes, *self.answers.no)]
        self._engine.reset_prefix_cache()  # as for rewards
        sampling = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=wanted, detokenize=False)
        outputs = self._engine.generate(_prompts(token_ids), sampling, use_tqdm=False)
        return [out.outputs[0].logprobs[0][token].logprob for out in outputs for token in wanted]

    def _strings(self, token_ids: Sequence[Sequence[int]]) -> list[float]:
        """The same for answers of several tokens."""
        answers = (*self.answers.yes, *self.answers.no)
        whole = [[*prompt, *answer] for prompt in token_ids for answer in answers]
        return super().score(whole, [len(prompt) for prompt in token_ids for _ in answers])


def try_engine(scorer: Scorer, model: str) -> None:
    """Score one token, so that an engine that fails on every batch ends the run before any group is blamed.

    Every engine is tested when it starts, also when it is restarted after a failure. Raises `RunError` with the
    engine's error.
    """
    token = scorer.tokenizer.eos_token_id
    try:
        scorer.score([[token, token]], [1])
    except Exception as error:
        raise RunError(
            f"{model}: the engine fails on a single token, so on any batch: {type(error).__name__}: {first_line(error)}"
        ) from error


def _adapter(options: EngineOptions) -> Any:
    """vLLM's request for the adapter; None without an adapter."""
    if options.lora is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, options.lora)


def _lora_options(options: EngineOptions) -> dict[str, Any]:
    if options.lora is None:
        return {}
    rank = lora_rank(options.lora)
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": min(r for r in LORA_RANKS if r >= rank)}


def _prompts(token_ids: Sequence[Sequence[int]]) -> list[dict[str, list[int]]]:
    return [{"prompt_token_ids": list(ids)} for ids in token_ids]


def cache_options(options: EngineOptions, reads_cache: bool) -> dict[str, Any]:
    """vLLM's options for the prefix cache. It is off if nothing reads it, because it costs a hash per block.

    The CPU build's default blocks have 128 tokens. Most prompts are shorter, so nothing would be shared. Its kernels
    also take multiples of 32.
    """
    if not (reads_cache and options.prefix_caching):
        return {"enable_prefix_caching": False}
    # None instead of True: vLLM decides by the model whether it can be on.
    return {"enable_prefix_caching": None, **({"block_size": CPU_BLOCK_TOKENS} if options.gpus == 0 else {})}


def _engine(options: EngineOptions, runner: Literal["generate", "pooling"], reads_cache: bool) -> Any:
    # vLLM reads these on import or start. This process only runs the engine.
    logging.getLogger("vllm").setLevel(logging.ERROR)  # for messages during the import, before vLLM sets its own level
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if options.ranks == 1:
        # Run the engine in this process, so that no child process remains when the actor is killed.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if options.gpus == 0:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(options.kv_cache_gib)
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # actors share the cores
        if os.environ.get("ATEN_CPU_CAPABILITY") == "default":
            # torch's compiler would still emit vector code, without its headers, and vLLM's sampling would not compile.
            import torch._dynamo

            torch._dynamo.config.disable = True
    with progress(f"start vLLM with {Path(options.model).name}"):
        return _started(options, runner, reads_cache)


def _started(options: EngineOptions, runner: Literal["generate", "pooling"], reads_cache: bool) -> Any:
    model = str(local_directory(options.model, weights=True, revision=options.revision))
    verify_model(model, "policy" if runner == "generate" else "reward model")
    if options.lora is not None:
        verify_adapter(Path(options.lora), model)
    from vllm import LLM

    try:
        return LLM(
            model=model,
            runner=runner,
            dtype=options.dtype,
            load_format="safetensors",  # otherwise vLLM would fall back to pickled weights
            max_model_len=options.max_model_len,
            tensor_parallel_size=options.tensor_parallel_size,
            pipeline_parallel_size=options.pipeline_parallel_size,
            # Not Ray: it would request resources that this actor already holds.
            distributed_executor_backend=None if options.ranks == 1 else "mp",
            **cache_options(options, reads_cache),
            enable_chunked_prefill=options.chunked_prefill,
            max_num_batched_tokens=options.max_num_batched_tokens,
            **_lora_options(options),
            gpu_memory_utilization=options.gpu_memory_utilization,
            enforce_eager=options.gpus == 0,
            seed=options.seed,
            trust_remote_code=False,
            disable_log_stats=True,
            use_tqdm_on_load=False,
        )
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"{options.model}: the vLLM engine did not start: {reason}") from error
