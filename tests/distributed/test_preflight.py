"""What is found before anything starts, from the config and the files it names."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from mapl_ray.config import RunConfig
from mapl_ray.distributed.preflight import check_inputs
from mapl_ray.distributed.resources import ALL_STAGES
from mapl_ray.errors import UserError
from mapl_ray.models import check_shareable


def test_heads_that_the_workers_of_a_row_can_not_divide(tmp_path: Path) -> None:
    train = {"num_workers": 6, "sequence_parallel_size": 3}
    tiny = RunConfig.model_validate({"train": train})
    with pytest.raises(UserError, match=r"sequence_parallel_size=3: model.tiny has num_attention_heads=4"):
        check_inputs(tiny, ("train rm",))
    check_inputs(tiny, ("synthesize",))
    config = {"num_attention_heads": 6, "num_key_value_heads": 2}
    with pytest.raises(UserError, match=r"org/m has num_key_value_heads=2, which is not divisible by it"):
        check_shareable(SimpleNamespace(**config), 3, "org/m")
    check_shareable(SimpleNamespace(**config), 2, "org/m")
    for rope in ({"rope_type": "dynamic"}, {"full_attention": {"rope_type": "longrope"}}):
        with pytest.raises(UserError, match=r"org/m has rotary frequencies of type (dynamic|longrope)"):
            check_shareable(SimpleNamespace(**config, rope_parameters=rope), 2, "org/m")


def test_a_pipeline_whose_policy_could_not_be_evaluated_is_refused() -> None:
    config = RunConfig.model_validate({"scoring": {"ref_logps": False, "reward_model": "org/rm"}})
    with pytest.raises(UserError, match="the evaluation of DPO needs ref_logps"):
        check_inputs(config, ALL_STAGES)
    check_inputs(config, ("synthesize", "score", "train rm"))


@pytest.mark.parametrize("scoring", [{"judge": {"model": "MODEL"}}, {"pair_reward_model": "MODEL"}])
def test_engines_that_look_at_pairs_are_measured_before_synthesis(tmp_path: Path, scoring: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    (tmp_path / "tokenizer.json").write_text("{}")
    values = json.loads(json.dumps({"scoring": scoring}).replace("MODEL", str(tmp_path)))
    with pytest.raises(UserError, match=r"scoring.max_model_len=4096: .* takes 512 tokens"):
        check_inputs(RunConfig.model_validate(values), ("synthesize",))
