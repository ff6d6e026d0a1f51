"""Ray Data actors that generate policies' answers to the prompts of groups: parts of groups in, parts of answers out.

An actor has one vLLM engine at a time. If its next part belongs to another policy, it shuts down that engine and starts
the next one in the same process, which takes a fraction of the first start.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import ray.data

from mapl_ray.batches import encode_prompt
from mapl_ray.config import ScoringConfig
from mapl_ray.data.records import RelationGroup
from mapl_ray.distributed.shard_tasks import MAX_RETRIES, Stage, errors_as_rows, rows_of_part, write_rows
from mapl_ray.errors import RunError, UserError, first_line
from mapl_ray.evaluation.own_prompts import asked_prompt
from mapl_ray.scoring import EngineOptions

ANSWER_SCHEMA = pa.schema([("pair_id", pa.string()), ("answer", pa.string()), ("cut", pa.bool_())])


def on_generators(
    shards: ray.data.Dataset,
    stages: list[Stage],
    options: list[EngineOptions],
    max_new_tokens: int,
    scoring: ScoringConfig,
) -> ray.data.Dataset:
    """Generate answers for every part of every stage; stage i uses the engine of `options[i]`."""
    low, high = scoring.engines
    return shards.map(
        AnswerShard,
        fn_constructor_kwargs={"stages": stages, "options": options, "max_new_tokens": max_new_tokens},
        compute=ray.data.ActorPoolStrategy(min_size=low, max_size=high),
        num_cpus=scoring.cpus_per_engine,
        num_gpus=scoring.gpus_per_engine,
        max_restarts=MAX_RETRIES,
        max_task_retries=MAX_RETRIES,
    )


class AnswerShard:
    """Answer one part per call, in `ANSWER_SCHEMA`: one greedy answer per group, to its `asked_prompt`."""

    def __init__(self, stages: list[Stage], options: list[EngineOptions], max_new_tokens: int) -> None:
        self._stages, self._options, self._max_new_tokens = stages, options, max_new_tokens
        self._generator: Any = None

    @errors_as_rows
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        stage, options = self._stages[int(row["stage"])], self._options[int(row["stage"])]
        groups = [RelationGroup.from_row(one) for one in rows_of_part(stage.source, int(row["index"]))]
        generator = self._engine(options)
        prompts = [encode_prompt(group.prompts[asked_prompt(group)], generator.tokenizer) for group in groups]
        try:
            answers = generator.generate(prompts, self._max_new_tokens)
        except (UserError, RunError):
            raise
        except Exception as error:
            raise RunError(
                f"{options.model}: the engine failed on groups {groups[0].pair_id} to {groups[-1].pair_id}: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
        rows = [
            {"pair_id": group.pair_id, "answer": text, "cut": cut}
            for group, (text, cut) in zip(groups, answers, strict=True)
        ]
        return write_rows(stage, row, rows, [], ANSWER_SCHEMA)

    def _engine(self, options: EngineOptions) -> Any:
        from mapl_ray.scoring.engine import Generator

        if self._generator is None or self._generator.options != options:
            if self._generator is not None:
                self._generator.end()
                self._generator = None
            self._generator = Generator(options)
        return self._generator
