"""Models of an object store: a real S3 server, real files, and what is never copied."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mapl_ray import model_copies
from mapl_ray.config import RunConfig, parse_config
from mapl_ray.distributed.preflight import check_inputs
from mapl_ray.distributed.resources import demand_of
from mapl_ray.distributed.score import column_scorers
from mapl_ray.errors import RunError, UserError
from mapl_ray.model_copies import local_directory
from mapl_ray.models import check_model_directory, load_policy, load_tokenizer, model_identity
from mapl_ray.preferences import remote_files
from mapl_ray.scoring import engine_needs


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has seen no model yet."""
    monkeypatch.setenv("MAPL_CACHE", str(tmp_path / "cache"))
    return another_process(tmp_path / "cache", monkeypatch)


def another_process(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(model_copies, "_seen", {})
    return cache / "models"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_a_model_is_copied_once_and_loads_as_a_local_one(
    tiny_model: Path, object_store: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shutil.copytree(tiny_model, tmp_path / "model")
    kept = names(source)
    for other in ("pytorch_model.bin", "modeling_tiny.py", "training_args.pt"):
        (source / other).write_bytes(b"not to be copied")
    uri = object_store.upload(source, "models/tiny")

    # Before a run: what is small. Its tokenizer works, and no weight has travelled.
    check_model_directory(uri)
    assert load_tokenizer(uri).get_vocab() == load_tokenizer(tiny_model).get_vocab()
    assert names(cache) == kept - {"model.safetensors"}

    loaded, local = load_policy(uri, "float32"), load_policy(tiny_model, "float32")
    for (name, ours), (_, theirs) in zip(loaded.named_parameters(), local.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert names(cache) == kept

    # Another process of this machine copies nothing again.
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    another_process(cache.parent, monkeypatch)
    assert local_directory(uri, weights=True) == next(iter(before)).parent
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")} == before

    # Another model at the same address, of the same size: known by its ETag, and a copy of its own.
    first = model_identity(uri)
    weights = bytearray((source / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (source / "model.safetensors").write_bytes(weights)
    object_store.upload(source, "models/tiny")
    assert model_identity(uri) == first  # in one process an address stands for one model
    another_process(cache.parent, monkeypatch)
    assert model_identity(uri) != first
    assert (Path(local_directory(uri, weights=True)) / "model.safetensors").read_bytes() == weights


def test_what_is_no_model_is_refused_before_the_run(
    tiny_model: Path, object_store: Any, cache: Path, tmp_path: Path
) -> None:
    pickled = shutil.copytree(tiny_model, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    bare = shutil.copytree(tiny_model, tmp_path / "bare")
    (bare / "config.json").unlink()
    for uri, word in (
        (object_store.upload(pickled, "models/pickled"), "no safetensors there.*pickles are not read"),
        (object_store.upload(bare, "models/bare"), r"no config\.json"),
        (object_store.uri("models/nowhere"), "no such file or folder there"),
    ):
        for config in (config_of(uri), config_of(tiny_model, reward_model=uri), config_of(tiny_model, ref_model=uri)):
            with pytest.raises(UserError, match=rf"s3://bucket/models/.*{word}"):
                check_inputs(config, ("score",))
    assert not any(path.suffix == ".bin" for path in cache.rglob("*"))


def test_a_model_of_googles_store(tiny_model: Path, google_store: Any, cache: Path) -> None:
    uri = google_store.upload(tiny_model, "models/tiny")
    assert all(file.etag() for file in remote_files(uri))
    assert load_policy(uri, "float32").num_parameters() == load_policy(tiny_model, "float32").num_parameters()
    assert names(cache) == names(tiny_model)


def test_scoring_takes_it_and_counts_what_it_needs(
    tiny_model: Path, tiny_reward_model: Path, object_store: Any, cache: Path
) -> None:
    uri = object_store.upload(tiny_model, "models/counted")
    rewards = object_store.upload(tiny_reward_model, "models/counted-rm")
    config = config_of(uri, reward_model=rewards)
    # Nobody has asked the server yet, and counting does not.
    assert [(needs.model, needs.weights) for needs in engine_needs(config)] == [(uri, None), (rewards, None)]
    check_inputs(config, ("score",))
    (here, _), (local,) = engine_needs(config), engine_needs(config_of(tiny_model))
    assert (here.weights, here.kv_token, here.longest) == (local.weights, local.kv_token, local.longest)
    assert demand_of("score", config_of(uri)).memory_gib == demand_of("score", config_of(tiny_model)).memory_gib > 2
    assert [scorer.options.model for scorer in column_scorers(config)] == [
        uri,
        rewards,
    ]  # every node makes its own copy
    with pytest.raises(UserError, match=r"max_model_len=4096: s3://.* takes 512 tokens"):
        check_inputs(config_of(uri, max_model_len=4096), ("score",))


def test_a_file_that_changes_while_it_is_copied(tiny_model: Path, cache: Path, tmp_path: Path) -> None:
    source = shutil.copytree(tiny_model, tmp_path / "model")
    check_model_directory(source.as_uri())
    with (source / "model.safetensors").open("ab") as weights:
        weights.write(b"more")
    with pytest.raises(RunError, match=r"model\.safetensors has .* bytes, expected"):
        load_policy(source.as_uri(), "float32")
    assert "model.safetensors" not in names(cache)
    assert json.loads(next(cache.rglob("config.json")).read_text())["model_type"] == "llama"
    assert not any(file.etag() for file in remote_files(source.as_uri()))  # local files have none


def config_of(model: Path | str, **scoring: Any) -> RunConfig:
    return parse_config({"model": {"name_or_path": str(model)}, "scoring": {"max_model_len": 256, **scoring}}, "test")
