"""`MaplTrainer`: the MAPL loss in `transformers.Trainer`, with Accelerate, FSDP, logger integrations and hub upload.

Batches, forward pass and objective are the same as in the DeepSpeed trainer. Imports neither Ray nor DeepSpeed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
from accelerate.utils import gather_object
from transformers import PreTrainedModel, Trainer, TrainingArguments

from mapl_ray.batches import Batch
from mapl_ray.batches.encode import TruncatePrompt
from mapl_ray.config import Attention
from mapl_ray.data.records import LEVEL_FAMILIES
from mapl_ray.errors import UserError
from mapl_ray.models import (
    PolicyLogps,
    RewardScores,
    load_policy,
    load_reward_model,
    load_tokenizer,
    prepare_for_trees,
)
from mapl_ray.models.tree_attention import row_budget, row_multiple
from mapl_ray.objective import Objective, Result
from mapl_ray.training.hf_groups import GroupCollator, encoded_dataset, has_ref_logps, padded_to, with_ref_logps


class MaplTrainer(Trainer):
    """`transformers.Trainer` for reward models and DPO policies on relation groups.

    `per_device_train_batch_size` counts groups. The loss of an optimizer step does not depend on how the step is split
    into micro-batches and processes: each level's sum is divided by its number of relations in the whole step. Logs
    `rewards/accuracies/LEVEL`, `rewards/margins/LEVEL` and `loss/LEVEL` for the levels pref, intra and inter, and for
    evaluations the same with prefix `eval_`.
    """

    def __init__(
        self,
        model: PreTrainedModel | str,
        args: TrainingArguments,
        objective: Objective,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        max_sequence_tokens: int = 2048,
        truncate_prompt: TruncatePrompt = "refuse",
        batching: Literal["tree", "padded"] = "tree",
        attention: Attention = "auto",
        **trainer_options: Any,
    ) -> None:
        """Encode the groups and, for DPO without `ref_logps`, compute `ref_logps` with the initial model.

        Args:
            model: a model, with or without a PEFT adapter, or its directory or hub name. `args.seed` initializes a
                missing reward head.
            objective: `Objective.of(TrainConfig(beta=..., weights=...), "rm")` or `"dpo"`.
            train_dataset: relation groups as a `datasets.Dataset` (`groups_dataset`, or the Parquet files of `mapl
                synthesize`). The column `ref_logps` is used if every group has it.
            eval_dataset: the same for evaluation, or a dict of data sets.
            processing_class: the tokenizer. Default: that of `model`, if it is a directory or hub name.
            max_sequence_tokens: as in the `train` section of a run config (docs/config.md).
            truncate_prompt: as in the `train` section.
            batching: as in the `train` section.
            attention: as in the `train` section.
            trainer_options: further arguments of `transformers.Trainer` (callbacks, optimizers, ...).

        Raises `UserError` for groups that can't be used, and for models that can't be trained on them.
        """
        if args.n_gpu > 1:
            raise UserError("MaplTrainer: one process sees several GPUs. Use `accelerate launch` or torchrun.")
        if isinstance(model, str):
            processing_class, model = processing_class or load_tokenizer(model), _loaded(model, objective, args.seed)
        collator = _prepared(model, processing_class, args, objective, batching, attention)
        self.objective = objective
        self._encode = partial(
            encoded_dataset,
            tokenizer=processing_class,
            max_sequence_tokens=max_sequence_tokens,
            truncate_prompt=truncate_prompt,
        )
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=_each(train_dataset, lambda one: self._encoded(one, "train_dataset")),
            eval_dataset=_each(eval_dataset, lambda one: self._encoded(one, "eval_dataset")),
            processing_class=processing_class,
            **trainer_options,
        )
        self.model_accepts_loss_kwargs = True  # the loss is divided by `_get_num_items_in_batch`, over the whole step
        self._train_sums, self._eval_sums = self._no_sums(), self._no_sums()
        if objective.method == "dpo":
            self.train_dataset: Any = _each(self.train_dataset, self._with_ref_logps)
            self.eval_dataset: Any = _each(self.eval_dataset, self._with_ref_logps)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute this batch's part of the step's loss, times the number of processes, as gradients are averaged over
        processes.

        `num_items_in_batch`: relations of each level in the whole step, [L]; None: the step is this batch.
        """
        result = self._result(model, inputs, num_items_in_batch)
        self._train_sums += result.sums
        loss = result.loss if num_items_in_batch is None else result.loss * self.accelerator.num_processes
        return (loss, {"margins": result.margins_R}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[None, None, None]:
        """Add a batch to the sums from which `evaluation_loop` computes metrics."""
        with torch.no_grad(), self.compute_loss_context_manager():
            self._eval_sums += self._result(model, inputs, None).sums
        return None, None, None

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **options: Any) -> Any:
        """Run `Trainer.evaluation_loop`, and add the loss and the metrics of every level."""
        self._eval_sums = self._no_sums()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **options)
        metrics = self.objective.metrics(self.accelerator.reduce(self._eval_sums, "sum"))
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Build the evaluation dataloader, so that no group is counted twice over processes."""
        dataset = self.eval_dataset[eval_dataset] if isinstance(eval_dataset, str) else eval_dataset
        dataset = self.eval_dataset if dataset is None else dataset
        if dataset is None:
            raise UserError("MaplTrainer: evaluation needs an eval_dataset.")
        if "prompt_ids" not in dataset.column_names:
            dataset = self._encoded(dataset, "eval_dataset")
            if self.objective.method == "dpo" and not has_ref_logps(dataset):
                raise UserError(
                    "eval_dataset: no ref_logps, and the policy may have changed. Pass it to MaplTrainer(...) instead."
                )
        world = self.accelerator.num_processes
        return super().get_eval_dataloader(
            dataset if world == 1 else padded_to(dataset, self.args.eval_batch_size * world)
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log with the metrics of every level, over the steps since the last log."""
        if "loss" in logs:
            metrics = self.objective.metrics(self.accelerator.reduce(self._train_sums, "sum"))
            self._train_sums = self._no_sums()
            logs = metrics | logs  # keeps Trainer's loss (a mean over steps), not ours (a mean over relations)
        super().log(logs, start_time)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Batch]], device: torch.device) -> torch.Tensor:
        """Relations of each level in an optimizer step, over all micro-batches and processes, float32 [L]."""
        counts_L = torch.stack([inputs["batch"].relations.counts() for inputs in batch_samples]).sum(0)
        total_L: torch.Tensor = self.accelerator.reduce(counts_L.float().to(device), "sum")
        return total_L

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        return dataset  # the collator needs all columns

    def _encoded(self, dataset: Any, where: str) -> Any:
        families = self.objective.weights.families if where == "train_dataset" else LEVEL_FAMILIES
        scored = self.objective.method == "dpo" and has_ref_logps(dataset)
        return self._encode(dataset, families=families, scored=scored, where=where)

    @torch.no_grad()
    def _with_ref_logps(self, dataset: Any) -> Any:
        """Add log pi_ref(y|x) of every sequence to encoded groups, computed with the model before training.

        Every process computes its share, with the adapter (if any) disabled.
        """
        if has_ref_logps(dataset):
            return dataset
        if any(parameter.is_meta or hasattr(parameter, "ds_id") for parameter in self.model.parameters()):
            raise UserError(
                "MaplTrainer: the model's weights are already partitioned, so ref_logps can't be computed. Fill the "
                "column with `mapl score`."
            )
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        share, size = dataset.select(range(rank, len(dataset), world)), self.args.eval_batch_size
        ref_logps: list[list[float]] = []
        training = self.model.training
        self.model.eval()
        without_adapter = self.model.disable_adapter() if hasattr(self.model, "get_base_model") else nullcontext()
        with self.accelerator.autocast(), without_adapter:
            for start in range(0, len(share), size):
                rows = share.select(range(start, min(start + size, len(share)))).to_list()
                batch = self.data_collator(rows)["batch"].to(self.model.device)
                sequences = [len(row["sequences"]) for row in rows]
                ref_logps += [part.tolist() for part in self.model(batch=batch).float().split(sequences)]
        self.model.train(training)
        found = dict(gather_object(list(zip(range(rank, len(dataset), world), ref_logps, strict=True))))
        return with_ref_logps(dataset, [found[row] for row in range(len(dataset))])

    def _result(self, model: Any, inputs: dict[str, Any], counts_L: torch.Tensor | None) -> Result:
        batch = inputs["batch"].to(self.args.device)
        return self.objective(model(batch=batch), batch, counts_L)

    def _no_sums(self) -> torch.Tensor:
        return torch.zeros(self.objective.num_sums, dtype=torch.float64, device=self.args.device)


def _loaded(path: str, objective: Objective, seed: int) -> Any:
    if objective.method == "rm":
        return load_reward_model(path, "float32", seed=seed)
    return load_policy(path, "float32")


def _prepared(
    model: Any,
    tokenizer: Any,
    args: TrainingArguments,
    objective: Objective,
    batching: Literal["tree", "padded"],
    attention: Attention,
) -> GroupCollator:
    """Check the model, make it accept a `Batch`, and return the data collator."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # includes PEFT's layers
    _check(base, tokenizer, objective)
    base.config.pad_token_id = tokenizer.pad_token_id
    base.config.use_cache = False
    if trees := batching == "tree":
        prepare_for_trees(base, attention, args.device.type, bf16=True if args.bf16 else None)
    base.forward = _taking_batches(base, objective)
    multiple, row_tokens = (row_multiple(base), row_budget(base)) if trees else (1, None)
    return GroupCollator(tokenizer.pad_token_id, batching, multiple, row_tokens)


def _check(model: Any, tokenizer: Any, objective: Objective) -> None:
    """Raise `UserError` for a model of the other method, and for a tokenizer whose pad token is missing or EOS."""
    what = f"MaplTrainer: {type(model).__name__}"
    if objective.method == "rm" and (getattr(model, "score", None) is None or model.config.num_labels != 1):
        raise UserError(f"{what}: expected a sequence classifier with num_labels=1. Use mapl_ray.load_reward_model.")
    if objective.method == "dpo" and model.get_output_embeddings() is None:
        raise UserError(f"{what}: expected a causal language model. Use mapl_ray.load_policy.")
    if tokenizer is None or tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise UserError(
            "MaplTrainer: expected a processing_class whose pad token is not EOS: a reward is read at the last "
            "token that is not padding. Use mapl_ray.load_tokenizer."
        )


def _taking_batches(model: Any, objective: Objective) -> Callable[..., Any]:
    """Extend the model's `forward`: with `batch=` it returns rewards or log-probabilities, float32 [S].

    It replaces the model's own `forward`, so that DDP, FSDP and PEFT see the call, and saving and loading still work.
    """
    forward, module = model.forward, RewardScores(model) if objective.method == "rm" else PolicyLogps(model)

    def taking_batches(*args: Any, batch: Batch | None = None, **options: Any) -> Any:
        return forward(*args, **options) if batch is None else module.forward(batch)

    return taking_batches


def _each(datasets: Any, change: Callable[[Any], Any]) -> Any:
    """Apply `change` to a data set, or to each one in a dict; None if there is none."""
    if datasets is None:
        return None
    return {name: change(one) for name, one in datasets.items()} if isinstance(datasets, dict) else change(datasets)
