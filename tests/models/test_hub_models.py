"""Models of the hub: which files are downloaded, which commit is loaded, and what is refused."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from mapl_ray import hub_models
from mapl_ray.cli import main
from mapl_ray.config import RunConfig, parse_config
from mapl_ray.distributed.hub_commits import with_commits
from mapl_ray.errors import UserError
from mapl_ray.evaluation.checkpoints import named_checkpoints
from mapl_ray.hub_models import hub_commit, hub_folder
from mapl_ray.models import check_model_directory, load_policy, load_tokenizer, model_identity
from mapl_ray.scoring import EngineOptions
from mapl_ray.scoring.engine import _started

FIRST, SECOND = "1" * 40, "2" * 40
Publish = Callable[..., None]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Puts a commit of `owner/name` into this machine's cache of the hub, which can't be reached otherwise."""
    root = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def add(model: Path, commit: str, name: str = "owner/name") -> None:
        repository = root / f"models--{name.replace('/', '--')}"
        shutil.copytree(model, repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
        hub_models._snapshot.cache_clear()  # as in another process

    return add


def named_weights(model: Path, to: Path, shard: str) -> Path:
    """A model whose config.json has transformers load an index in a sub-folder, which names `shard`."""
    shutil.copytree(model, to)
    values = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(values | {"transformers_weights": "sub/x.safetensors.index.json"}))
    (to / "sub").mkdir()
    weight_map = dict.fromkeys(("lm_head.weight", "model.norm.weight"), shard)
    (to / "sub" / "x.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return to


@pytest.mark.parametrize("shard", ["../../elsewhere.safetensors", "weights.bin", "weights.safetensors"])
def test_a_config_that_names_other_weights_is_refused(
    shard: str, tiny_model: Path, tmp_path: Path, publish: Publish
) -> None:
    hostile = named_weights(tiny_model, tmp_path / "hostile", shard)
    publish(hostile, FIRST)
    for path in (hostile, "owner/name"):
        for load in (check_model_directory, load_tokenizer, lambda one: load_policy(one, "float32")):
            with pytest.raises(UserError, match=r"config\.json: transformers_weights names other files"):
                load(path)


@pytest.mark.parametrize("shard", ["../../elsewhere.safetensors", "weights.bin", "../model.safetensors"])
def test_an_index_in_a_sub_folder_is_looked_at(shard: str, tiny_model: Path, tmp_path: Path) -> None:
    hostile = named_weights(tiny_model, tmp_path / "hostile", shard)
    shutil.copy(tiny_model / "config.json", hostile / "config.json")
    with pytest.raises(UserError, match=r"sub/x\.safetensors\.index\.json: .* is not a safetensors file in this"):
        check_model_directory(hostile)


def test_pickles_of_the_hub_are_refused_by_the_engine_as_well(
    tiny_model: Path, tmp_path: Path, publish: Publish
) -> None:
    pickled = shutil.copytree(tiny_model, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    publish(pickled, FIRST)
    options = EngineOptions.of(parse_config({}, "test").scoring, "owner/name", None, "float32", 0)
    for load in (lambda: load_policy("owner/name", "float32"), lambda: _started(options, "generate", False)):
        with pytest.raises(UserError, match=r"owner/name: revision .* has none of model\.safetensors"):
            load()


def run_of(folder: Path, name: str = "mine", **sections: Any) -> RunConfig:
    return parse_config({"output_dir": str(folder), "name": name, **sections}, "test")


def test_a_run_keeps_the_commit_that_it_began_with(
    tiny_model: Path, tmp_path: Path, publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tiny_model, FIRST)
    sections: dict[str, Any] = {
        "model": {"name_or_path": "owner/name"},
        "scoring": {"ref_model": "owner/name", "judge": {"model": "owner/name"}, "pair_reward_model": "owner/name"},
        "evaluation": {"models": ["owner/name", str(tiny_model)], "reference": "owner/name@main"},
    }
    config = with_commits(run_of(tmp_path / "runs", **sections))
    publish(tiny_model, SECOND)  # `main` moves
    assert hub_commit("owner/name", None) == SECOND
    again = with_commits(run_of(tmp_path / "runs", **sections))
    of_its_data = with_commits(run_of(tmp_path / "runs", "another", data_run="mine", **sections))
    for one in (config, again, of_its_data):
        scoring = one.scoring
        assert {
            one.model.revision,
            scoring.ref_model_revision,
            scoring.judge.revision,
            scoring.pair_reward_model_revision,
        } == {FIRST}
        assert one.evaluation.models == (f"owner/name@{FIRST}", str(tiny_model))
        assert one.evaluation.reference == f"owner/name@{FIRST}"
        assert model_identity("owner/name", one.model.revision) == f"owner/name@{FIRST}"
    assert named_checkpoints(config.evaluation.models)[0].name == f"owner/name@{FIRST[:12]}"
    assert with_commits(run_of(tmp_path / "runs", "new", **sections)).model.revision == SECOND

    # The hub can't be asked: the run goes on with what nodes find, and says so.
    unknown = run_of(tmp_path / "runs", model={"name_or_path": "owner/unknown"})
    assert with_commits(unknown).model.revision is None
    assert "owner/unknown@main: not resolved to a commit" in capsys.readouterr().out
    (tmp_path / "runs" / "mine" / "hub_commits.json").write_text('{"owner/name@main": "HEAD"}')
    assert with_commits(run_of(tmp_path / "runs", **sections)).model.revision == SECOND
    assert "hub_commits.json: damaged, kept as" in capsys.readouterr().out


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """A hub with one repository, the folder, on loopback; and which of its files were asked for."""
    folder, asked = tmp_path / "repository", list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if path.startswith("/api/models/owner/name/tree/"):
                self._send(json.dumps([entry(file) for file in files()]).encode(), {})
            elif path.startswith("/api/models/owner/name"):
                siblings = [{"rfilename": str(file.relative_to(folder))} for file in files()]
                about = {"id": "owner/name", "modelId": "owner/name", "sha": FIRST, "siblings": siblings}
                self._send(json.dumps(about).encode(), {})
            else:
                name = path.removeprefix(f"/owner/name/resolve/{FIRST}/")
                asked.append(name)
                body = (folder / name).read_bytes()
                self._send(body, {"X-Repo-Commit": FIRST, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'})

        def _send(self, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    def files() -> list[Path]:
        return sorted(file for file in folder.rglob("*") if file.is_file())

    def entry(file: Path) -> dict[str, Any]:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:40]
        return {"type": "file", "path": str(file.relative_to(folder)), "size": file.stat().st_size, "oid": digest}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    for constant, value in {
        "HF_HUB_OFFLINE": False,
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{constant}", value)
    hub_models._snapshot.cache_clear()
    Thread(target=server.serve_forever, daemon=True).start()
    yield folder, asked
    server.shutdown()
    server.server_close()
    hub_models._snapshot.cache_clear()


def test_what_is_not_read_is_not_downloaded(tiny_model: Path, hub: tuple[Path, list[str]]) -> None:
    repository, asked = hub
    shutil.copytree(tiny_model, repository)
    for other in ("pytorch_model.bin", "modeling.py", "training_args.pt", "onnx/model.json", "sub/model.safetensors"):
        (repository / other).parent.mkdir(exist_ok=True)
        (repository / other).write_bytes(b"not to be copied")
    (repository / "consolidated.safetensors").write_bytes(b"the same weights in another format")
    kept = {path.name for path in tiny_model.iterdir() if path.is_file()}
    folder = hub_folder("owner/name", None, weights=False)
    assert folder.name == FIRST
    assert {path.name for path in folder.iterdir()} == kept - {"model.safetensors"} == set(asked)
    assert load_policy("owner/name", "float32").num_parameters() == load_policy(tiny_model, "float32").num_parameters()
    assert {path.name for path in folder.iterdir()} == kept == set(asked)


def test_the_key_is_refused_at_any_depth(tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    values = json.loads((model / "config.json").read_text())
    for inner in ({"text_config": {"transformers_weights": "x"}}, {"parts": [{"transformers_weights": 1}]}):
        (model / "config.json").write_text(json.dumps(values | inner))
        with pytest.raises(UserError, match=r"config\.json: transformers_weights names other files"):
            check_model_directory(model)


@pytest.mark.parametrize("command", [["synthesize"], ["train", "rm"]], ids=" ".join)
def test_commands_begin_with_the_commit(
    command: list[str], tiny_model: Path, tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tiny_model, FIRST)
    seen: list[str | None] = []

    def session(config: RunConfig, *_: Any, **__: Any) -> None:
        seen.append(config.model.revision)
        raise UserError("far enough")

    monkeypatch.setattr("mapl_ray.distributed.pipeline.session", session)
    assert main([*command, f"output_dir={tmp_path}", "model.name_or_path=owner/name"]) == 2
    assert seen == [FIRST]
