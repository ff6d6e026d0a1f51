"""Resource arithmetic, without a cluster."""

import json
from pathlib import Path

import pytest

from mapl_ray.config import RunConfig, parse_config
from mapl_ray.distributed.resources import Node, Resources, check_stage, demand_of
from mapl_ray.errors import UserError
from mapl_ray.scoring import check_engine, engine_needs

STAGES = ("score pairs", "score", "train rm", "train dpo", "tune", "synthesize")


def config(**sections: object) -> RunConfig:
    return parse_config(dict(sections), "test")


def test_demands_by_hand() -> None:
    one = config(
        train={"num_workers": 8, "cpus_per_worker": 4, "gpus_per_worker": 1},
        dpo={"num_workers": 16},
        scoring={"num_engines": 3, "cpus_per_engine": 2, "gpus_per_engine": 2},
        tune={"max_concurrent_trials": 2, "num_trials": 5},
    )
    found = {stage: str(demand_of(stage, one)) for stage in STAGES}
    assert found == {
        "score pairs": "3 x (2 CPU + 2 GPU)",
        "score": "3 x (2 CPU + 2 GPU)",  # on GPUs the cache is no main memory
        "train rm": "8 x (4 CPU + 1 GPU)",
        "train dpo": "16 x (4 CPU + 1 GPU)",
        "tune": "8 x (4 CPU + 1 GPU)",  # one trial: `trials_at_once` says how many fit
        "synthesize": "1 x (1 CPU + 0 GPU)",
    }


def test_more_workers_than_the_cluster_holds() -> None:
    resources = Resources((Node(cpus=8, gpus=2), Node(cpus=8, gpus=2)))
    fits = config(train={"num_workers": 4, "cpus_per_worker": 4, "gpus_per_worker": 1})
    check_stage("train rm", fits, resources)
    with pytest.raises(UserError, match=r"train rm needs 5 x .* room for 4 .*train.num_workers"):
        check_stage("train rm", config(train={"num_workers": 5, "cpus_per_worker": 4, "gpus_per_worker": 1}), resources)


def test_an_engine_does_not_span_nodes() -> None:
    # 4 GPUs in all, but no node has 4: an engine over 4 could never start.
    resources = Resources((Node(cpus=8, gpus=2), Node(cpus=8, gpus=2)))
    wide = config(scoring={"gpus_per_engine": 4})
    with pytest.raises(UserError, match="room for 0"):
        check_stage("score", wide, resources)


def test_the_fewest_workers_must_fit_where_they_come_and_go() -> None:
    elastic = {"num_workers": 8, "min_workers": 2, "cpus_per_worker": 2}
    assert str(demand_of("train rm", config(train=elastic))) == "2 x (2 CPU + 0 GPU)"
    assert str(demand_of("tune", config(train=elastic))) == "8 x (2 CPU + 0 GPU)"  # trials are of one size
    check_stage("train rm", config(train=elastic), Resources((Node(2, 0), Node(2, 0))))
    with pytest.raises(UserError, match=r"train rm needs 2 x .* room for 1 .*Lower train.min_workers"):
        check_stage("train rm", config(train=elastic), Resources((Node(3, 0),)))
    with pytest.raises(UserError, match=r"min_workers=3: expected at most num_workers=2"):
        config(train={"num_workers": 2, "min_workers": 3})


def test_fractions_add_up() -> None:
    check_stage("train rm", config(train={"num_workers": 3, "cpus_per_worker": 0.1}), Resources((Node(0.3, 0),)))


TINY = {"tiny": {"vocab_size": 1000, "hidden_size": 64, "num_layers": 2, "num_heads": 2}}


def test_what_an_engine_needs_by_hand() -> None:
    (needs,) = engine_needs(config(model=TINY))
    # Keys and values of 2 layers of 64 values of 4 bytes: 2 * 2 * 64 * 4 = 1024 bytes per token.
    assert needs.kv_token == 1024
    # Embeddings 2 * 1000 * 64 and layers 2 * 16 * 64^2: 259,072 parameters of 4 bytes.
    assert needs.weights == 4 * 259_072
    # Two processes of 1 GiB and a cache of 3, and the weights once.
    scoring = config(scoring={"tensor_parallel_size": 2, "kv_cache_gib": 3}).scoring
    assert needs.memory_gib(scoring) == pytest.approx(8 + 4 * 259_072 / 2**30)


def test_needs_of_a_directory_and_of_a_hubs_name(tmp_path: Path) -> None:
    values = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2}
    values |= {"max_position_embeddings": 512, "dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "model.safetensors").write_bytes(b"0" * 4000)
    one = {"model": {"name_or_path": str(tmp_path), "dtype": "bfloat16"}, "scoring": {"reward_model": "org/rm"}}
    here, hub = engine_needs(config(**one))
    # 2 * 3 layers * 2 key-value heads * (64 / 8) * 2 bytes = 192; the weights at half their size.
    assert (here.kv_token, here.weights, here.longest) == (192, 2000, 512)
    assert (hub.kv_token, hub.weights, hub.longest) == (None, None, None)
    scaled = values | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}
    (tmp_path / "config.json").write_text(json.dumps(scaled))
    assert engine_needs(config(**one))[0].longest is None


def test_engines_that_can_not_start_are_refused_before() -> None:
    long = {"tiny": {**TINY["tiny"], "hidden_size": 1024, "num_layers": 16, "max_position_embeddings": 16384}}
    # 2 * 16 * 1024 * 4 = 128 KiB a token: 1 GiB of cache holds 8192.
    check_engine(config(model=long, scoring={"max_model_len": 8192}))
    with pytest.raises(UserError, match=r"kv_cache_gib=1: .*max_model_len=8193 .*1.0 GiB"):
        check_engine(config(model=long, scoring={"max_model_len": 8193}))
    check_engine(config(model=long, scoring={"max_model_len": 8193, "kv_cache_gib": 2}))
    with pytest.raises(UserError, match=r"max_model_len=20000: tiny takes 16384 tokens"):
        check_engine(config(model=long, scoring={"max_model_len": 20_000}))


def test_models_are_cut_only_where_they_can_be(tmp_path: Path) -> None:
    values = {"num_attention_heads": 12, "num_key_value_heads": 2, "intermediate_size": 96, "num_hidden_layers": 3}
    values |= {"hidden_size": 96, "max_position_embeddings": 8192}
    (tmp_path / "config.json").write_text(json.dumps(values))

    def check(tensor: int = 1, pipeline: int = 1, **scoring: object) -> None:
        sizes = {"tensor_parallel_size": tensor, "pipeline_parallel_size": pipeline, "gpus_per_engine": 64, **scoring}
        check_engine(config(model={"name_or_path": str(tmp_path)}, scoring=sizes))

    check(2, 3)
    check(4)  # each of two key-value heads on two ranks
    for tensor, what in ((8, "num_attention_heads=12"), (3, "num_key_value_heads=2")):
        with pytest.raises(UserError, match=rf"tensor_parallel_size={tensor}: .* {what}.*num_engines"):
            check(tensor)
    with pytest.raises(UserError, match=r"pipeline_parallel_size=4: .* 3 layers"):
        check(1, 4)
    # 2 * 3 layers * 2 heads * 8 values * 4 bytes = 384 a token; of 2 heads a rank keeps one at 2 ranks and at 4.
    (needs,) = engine_needs(config(model={"name_or_path": str(tmp_path)}))
    for tensor, kept in ((1, 384), (2, 192), (4, 192)):
        of_engine = config(scoring={"tensor_parallel_size": tensor}).scoring
        assert needs.kv_token_of_a_rank(of_engine) == kept


def test_memory_counts_on_every_node() -> None:
    # 1 GiB of process and 3 of cache an engine; the weights are nothing.
    engines = {"model": TINY, "scoring": {"kv_cache_gib": 3, "num_engines": 3}}
    check_stage("score", config(**engines), Resources((Node(8, 0, memory_gib=8.5), Node(8, 0, memory_gib=4.5))))
    with pytest.raises(UserError, match=r"score needs 3 x \(1 CPU \+ 0 GPU \+ 4.0 GiB\).*room for 2.*kv_cache_gib"):
        check_stage("score", config(**engines), Resources((Node(8, 0, memory_gib=7.5), Node(8, 0, memory_gib=4.5))))
    # Without word of the memory it is not counted.
    check_stage("score", config(**engines), Resources((Node(8, 0),)))


def test_the_fewest_engines_must_fit() -> None:
    wide = {"concurrency": (2, 6), "cpus_per_engine": 2}
    assert demand_of("score", config(scoring=wide)).number == 2
    check_stage("score", config(scoring=wide), Resources((Node(4, 0),)))
    with pytest.raises(UserError, match=r"score needs 2 x .* room for 1.* Lower scoring.concurrency"):
        check_stage("score", config(scoring=wide), Resources((Node(3, 0),)))
