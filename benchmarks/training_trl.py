"""TRL's trainers on the same groups, converted to pairs."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

from training_steps import BETA, LEARNING_RATE, Learner, Measured, remembered, timed

from mapl_ray.batches import EncodedGroup
from mapl_ray.data.records import Level, Relation, RelationGroup
from mapl_ray.models import load_policy, load_reward_model, load_tokenizer

TRL_LEVELS: dict[str, tuple[str, ...]] = {
    "TRL, pref": ("pref",),
    "TRL, pref and intra": ("pref", "intra"),
    "TRL, pref, intra, inter's sequences": ("pref", "intra", "inter"),
}


def trl_rows(groups: list[RelationGroup], method: str, levels: tuple[str, ...]) -> list[dict[str, Any]]:
    """Relations of groups as pairs for TRL.

    `RewardTrainer` takes conversations, so intra pairs can be expressed exactly. `DPOTrainer` needs one prompt for both
    sides, so intra's four sequences are paired by prompt: same work, another loss. A relation of four sequences (inter)
    can't be expressed in either; its sequences become two pairs, one per prompt: same work, another loss.
    """
    rows = []
    for group in groups:
        texts = [[{"role": m.role, "content": m.content} for m in prompt] for prompt in group.prompts]
        answers = [[{"role": "assistant", "content": response}] for response in group.responses]
        pairs: list[tuple[int, int]] = []
        for relation in group.relations:
            if relation.level.family in levels and not (method == "dpo" and relation.level is Level.INTRA):
                pairs += _same_prompt(group, relation)
        if method == "dpo" and "intra" in levels:
            intra = [r for r in group.relations if r.level is Level.INTRA]
            sides = (tuple(r.preferred[0] for r in intra), tuple(r.dispreferred[0] for r in intra))
            pairs += _same_prompt(group, Relation(Level.INTRA, *sides))
        for a, b in ((group.sequences[i], group.sequences[j]) for i, j in pairs):
            if method == "dpo":
                rows.append({"prompt": texts[a.prompt], "chosen": answers[a.response], "rejected": answers[b.response]})
            else:
                rows.append(
                    {side: texts[s.prompt] + answers[s.response] for side, s in (("chosen", a), ("rejected", b))}
                )
    return rows


def _same_prompt(group: RelationGroup, relation: Relation) -> list[tuple[int, int]]:
    """Pair each preferred sequence with a dispreferred one, of the same prompt if there is one."""
    rest, pairs = list(relation.dispreferred), []
    for preferred in relation.preferred:
        prompt = group.sequences[preferred].prompt
        other = next((i for i in rest if group.sequences[i].prompt == prompt), rest[0])
        rest.remove(other)
        pairs.append((preferred, other))
    return pairs


def against_trl(
    learner: Learner,
    ours: list[EncodedGroup],
    rows: list[dict[str, Any]],
    directory: Path,
    dtype: Any,
    repeats: int,
    names: tuple[str, str],
) -> list[Measured]:
    """Alternate steps of TRL's trainer and ours. TRL's step ends when the next `on_step_end` is called."""
    import datasets
    from transformers import PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    datasets.disable_progress_bars()
    device = learner.device
    mine, step = learner.measured(names[0], ours, "tree")
    theirs = Measured(names[1], 0, 0)

    class Turns(TrainerCallback):  # Trainer only calls subclasses of TrainerCallback
        """The first step is a warm-up, the second measures memory, the others time. Our steps run in between."""

        stack = contextlib.ExitStack()

        def on_step_end(self, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
            self.stack.close()
            measure = remembered if state.global_step == 1 else timed
            if state.global_step == 1:
                step()
            with measure(mine, device):
                step()
            if state.global_step < state.max_steps:
                self.stack.enter_context(measure(theirs, device))

    options = {
        "per_device_train_batch_size": len(rows), "max_steps": repeats + 2, "use_cpu": device == "cpu", "bf16": False,
        "report_to": [], "save_strategy": "no", "logging_steps": 10**6, "disable_tqdm": True, "max_length": None,
        "gradient_checkpointing": False, "optim": "adamw_torch", "max_grad_norm": 1.0, "learning_rate": LEARNING_RATE,
        "dataloader_pin_memory": False,
    }  # fmt: skip
    turns = Turns()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        rest = {
            "train_dataset": datasets.Dataset.from_list(rows),
            "processing_class": load_tokenizer(directory),
            "callbacks": [turns],
        }
        if learner.method == "rm":
            model = load_reward_model(directory, dtype, seed=0)
            trainer = RewardTrainer(model, RewardConfig(folder, **options), **rest)
        else:
            config = DPOConfig(folder, beta=BETA, precompute_ref_log_probs=True, **options)
            trainer = DPOTrainer(load_policy(directory, dtype), None, config, **rest)
        model = trainer.model
        model.set_attn_implementation("sdpa")
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])
        theirs.padded_tokens = batch["input_ids"].numel()
        theirs.tokens = int(batch["attention_mask"].sum())
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [mine, theirs]
