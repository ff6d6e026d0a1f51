"""What users get wrong in a config ends in one message that names key, value and what was expected."""

from pathlib import Path

import pytest

from mapl_ray.cli import main
from mapl_ray.config import RunConfig, load_config, parse_config
from mapl_ray.errors import UserError
from mapl_ray.training.engine_config import engine_config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.zero_stag=3", r"unknown key 'train.zero_stag'. Known keys here: .*zero_stage"),
        ("rm.zero_stag=3", r"unknown key 'rm.zero_stag'. Known keys here: .*zero_stage"),
        ("train.weights.lambda=1", r"unknown key 'train.weights.lambda'. Known keys here: lambda_intra, lambda_inter"),
        ("train.zero_stage=4", r"train.zero_stage=4: .*0, 1, 2 or 3"),
        ("train.beta=0", r"train.beta=0: .*greater than 0"),
        ("train.attention=flex", r"train=.*attention=flex needs GPUs, got gpus_per_worker=0"),
        (
            "train={attention: varlen, gpus_per_worker: 1, bf16: false}",
            r"train=.*attention=varlen needs bfloat16; leave bf16 out",
        ),
        (
            "train={sequence_parallel_size: 2, num_workers: 3}",
            r"train=.*sequence_parallel_size=2: expected a divisor of num_workers=3",
        ),
        (
            "train={sequence_parallel_size: 2, num_workers: 2, batching: padded}",
            r"train=.*sequence_parallel_size=2 needs batching=tree",
        ),
        (
            "train={sequence_parallel_size: 2, num_workers: 4, min_workers: 2}",
            r"train=.*sequence_parallel_size=2 and min_workers=2: .*leave min_workers out",
        ),
        ("train.zero_hpz_partition_size=0", r"train.zero_hpz_partition_size=0: .*greater than or equal to 1"),
        (
            "train={zero_hpz_partition_size: 2, num_workers: 4}",
            r"train=.*zero_hpz_partition_size=2 needs zero_stage=3, got zero_stage=2",
        ),
        (
            "train={zero_hpz_partition_size: 4, num_workers: 6, zero_stage: 3}",
            r"train=.*zero_hpz_partition_size=4: expected a divisor of num_workers=6, and of the workers of a node",
        ),
        (
            "train={zero_hpz_partition_size: 2, num_workers: 4, zero_stage: 3, min_workers: 2}",
            r"train=.*zero_hpz_partition_size=2 and min_workers=2: .*leave min_workers out",
        ),
        ("train={overlap_comm: true, zero_stage: 0}", r"train=.*overlap_comm=true needs zero_stage >= 1"),
        ("train.overlap_comm=sometimes", r"train.overlap_comm='?sometimes'?: "),
        ("name=../../x", r"name='../../x': expected letters"),
        ("synthesis.max_instructions=0", r"synthesis.max_instructions=0"),
        ("synthesis.k_weights={0: 1}", r"synthesis.k_weights=.*k >= 1"),
        ("synthesis.family_weights={length: -1}", r"synthesis.family_weights=.*weights >= 0"),
        ("synthesis.soft_confidence=0.5", r"synthesis.soft_confidence=0.5: .*greater than 0.5"),
        ("synthesis.groups_per_pair=0", r"synthesis.groups_per_pair=0"),
        ("scoring.judge.functions=[formal_tone]", r"scoring.judge=.*without model"),
        ("scoring.judge={model: policy, revision: main}", r"scoring.judge=.*model.revision"),
        ("scoring.pair_margin.min_margin=0", r"scoring=.*pair_margin needs a reward model"),
        ("scoring.pair_margin.min_margin=.nan", r"scoring.pair_margin.min_margin=nan: .*finite"),
        ("scoring.judge.modle=policy", r"unknown key 'scoring.judge.modle'. Known keys here: model, revision"),
        ("tune.space={train.beta: {loguniform: [2, 1]}}", r"tune.space.train.beta=.*low < high"),
        ("tune.objective={prefs: 1}", r"tune.objective=.*pref, intra, inter"),
        ("seed.x=1", r"seed"),
        ("seed", r"expected section.key=value"),
    ],
)
def test_a_wrong_value_is_named(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, [override, *(["seed=0"] if override == "seed" else [])])


def test_files_that_are_not_a_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such config file"):
        load_config(tmp_path / "none.yaml")
    path = tmp_path / "a.yaml"
    path.write_text("- 1\n")
    with pytest.raises(UserError, match="expected a mapping"):
        load_config(path)
    path.write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(UserError, match="not a readable YAML"):
        load_config(path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {"rm": False, "dpo": False, "train": "float32", "engine": "float32"}),
        ({"train": {"gpus_per_worker": 1}}, {"rm": True, "dpo": True, "train": "bfloat16", "engine": "float32"}),
        ({"rm": {"gpus_per_worker": 0.5}}, {"rm": True, "dpo": False, "train": "bfloat16", "engine": "float32"}),
        ({"scoring": {"gpus_per_engine": 1}}, {"rm": False, "dpo": False, "train": "float32", "engine": "bfloat16"}),
        # What is set wins.
        (
            {"train": {"gpus_per_worker": 1, "bf16": False}, "dpo": {"bf16": True}},
            {"rm": False, "dpo": True, "train": "float32", "engine": "float32"},
        ),
        (
            {"train": {"bf16": False}, "rm": {"gpus_per_worker": 1}},
            {"rm": False, "dpo": False, "train": "float32", "engine": "float32"},
        ),
        ({"train": {"bf16": True}}, {"rm": True, "dpo": True, "train": "bfloat16", "engine": "float32"}),
        (
            {"train": {"gpus_per_worker": 1}, "scoring": {"gpus_per_engine": 1}, "model": {"dtype": "float32"}},
            {"rm": True, "dpo": True, "train": "float32", "engine": "float32"},
        ),
        ({"model": {"dtype": "bfloat16"}}, {"rm": False, "dpo": False, "train": "bfloat16", "engine": "bfloat16"}),
    ],
)
def test_bfloat16_is_the_default_on_gpus(values: dict[str, object], expected: dict[str, object]) -> None:
    config = parse_config(values, "test")
    for one in (config, parse_config(config.model_dump(mode="json"), "written and read again")):
        rm, dpo = one.training("rm"), one.training("dpo")
        assert {
            "rm": rm.bf16,
            "dpo": dpo.bf16,
            "train": one.model.dtype_where(rm.in_bf16),
            "engine": one.engine_dtype,
        } == expected
        assert engine_config(rm, 1)["bf16"] == {"enabled": expected["rm"]}


def test_methods_lay_their_values_over_train() -> None:
    config = parse_config(
        {"train": {"zero_stage": 1, "weights": {"lambda_inter": 3}}, "dpo": {"zero_stage": 3}}, "test"
    )
    assert (config.training("rm").zero_stage, config.training("dpo").zero_stage) == (1, 3)
    assert config.training("dpo").weights.lambda_inter == 3


def test_the_command_line_wins_over_a_method_section(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("dpo: {zero_stage: 3, weights: {lambda_intra: 5}}\n")
    config = load_config(path, ["train.zero_stage=1", "train.weights.lambda_intra=2", "train.learning_rate=5e-6"])
    dpo = config.training("dpo")
    assert (dpo.zero_stage, dpo.weights.lambda_intra, dpo.learning_rate) == (1, 2.0, 5e-6)


def test_a_config_survives_its_own_dump() -> None:
    config = load_config(
        None, ["dpo.zero_stage=3", "tune.method=dpo", "tune.space={train.beta: {loguniform: [0.05, 0.5]}}"]
    )
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "words",
    [
        ["train", "rm", "seed=3", "name=x"],
        ["train", "rm", "--config", "FILE", "seed=3", "name=x"],
        ["train", "rm", "seed=3", "--config", "FILE", "name=x"],
        ["synthesize", "--data", "demo", "seed=3", "name=x"],
        ["export", "--format", "trl", "seed=3", "--output", "o.jsonl", "name=x"],
    ],
)
def test_overrides_stand_anywhere_after_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1")
    words = [str(tmp_path / "a.yaml") if word == "FILE" else word for word in words]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--print-config"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "seed: 3" in printed
    assert "name: x" in printed
