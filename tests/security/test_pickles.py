"""Pickles and remote code in data and models that somebody hands in: refused with a message, and never run."""

import base64
import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data  # registers the extension types whose values are pickles, as in every process of a run
import torch.distributed
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from mapl_ray.config import DataConfig, ScoringConfig, parse_config
from mapl_ray.data.records import GROUP_SCHEMA
from mapl_ray.data.shards import commit, iter_rows, write_part
from mapl_ray.doctor import diagnose
from mapl_ray.errors import UserError
from mapl_ray.models import check_model_directory, load_policy, load_reward_model, load_tokenizer
from mapl_ray.preferences import read_pairs
from mapl_ray.preferences.library_sources import _hub_rows
from mapl_ray.report import build_data_card
from mapl_ray.scoring import check_lora
from mapl_ray.training.group_table import GroupTable

assert ray.data.__name__
ROOT = Path(__file__).resolve().parents[2]
TEXTS = {"chosen": ["yes"], "rejected": ["no"]}


def column(name: str, kind: pa.DataType, extension: str, serialized: bytes = b"") -> pa.Field:
    """As an extension type is written into a file; nothing has to be registered for that."""
    metadata = {b"ARROW:extension:name": extension.encode(), b"ARROW:extension:metadata": serialized}
    return pa.field(name, kind, metadata=metadata)


def pickled_values(canary: Any, name: str = "prompt") -> pa.Table:
    field = column(name, pa.large_binary(), "ray.data.arrow_pickled_object")
    schema = pa.schema([field, ("chosen", pa.string()), ("rejected", pa.string())])
    return pa.table([[canary.pickle], *TEXTS.values()], schema=schema)


def nested(canary: Any) -> pa.Table:
    inner = column("content", pa.large_binary(), "ray.data.arrow_pickled_object")
    schema = pa.schema([("prompt", pa.list_(pa.struct([inner]))), ("chosen", pa.string()), ("rejected", pa.string())])
    return pa.table([[[{"content": canary.pickle}]], *TEXTS.values()], schema=schema)


def pickled_schema(canary: Any, extension: str = "ray.data.arrow_tensor") -> pa.Table:
    """The pickle is in the type's own metadata: old versions of Ray opened it with the file."""
    schema = pa.schema([column("prompt", pa.list_(pa.int64()), extension, canary.pickle), ("chosen", pa.string())])
    return pa.table([[[1]], ["yes"]], schema=schema)


HOSTILE: dict[str, Callable[[Any], pa.Table]] = {
    "pickled values": pickled_values,
    "nested": nested,
    "in a column that is not read": lambda canary: pickled_values(canary, "extra"),
    "pickled schema": pickled_schema,
    "pickled schema, variable shapes": lambda canary: pickled_schema(canary, "ray.data.arrow_variable_shaped_tensor"),
    "pickled schema, Arrow's own": lambda canary: pickled_schema(canary, "arrow.py_extension_type"),
}


def test_the_corpus_has_teeth(loud: Any, tmp_path: Path) -> None:
    """Read as data is read everywhere else, the pickle runs: what the tests below refuse is not a blank."""
    pq.write_table(pickled_values(loud), tmp_path / "a.parquet")
    pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert loud.path.exists()


@pytest.mark.parametrize("table", HOSTILE.values(), ids=HOSTILE)
def test_pickles_in_data_are_refused(table: Callable[[Any], pa.Table], canary: Any, tmp_path: Path) -> None:
    file = tmp_path / "pairs.parquet"
    pq.write_table(table(canary), file)
    for path in (str(file), file.as_uri()):
        with pytest.raises(UserError, match=r"pairs\.parquet: (column .* extension type|cannot be read)"):
            list(read_pairs(DataConfig(path=path)))
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    shutil.copy(file, folder / "train.parquet")
    # As of a data set on the hub, which this folder is to the library.
    with contextlib.suppress(UserError):  # a type that nobody registered comes as what is stored, and that is plain
        list(_hub_rows(DataConfig(path=str(folder.parent))))


def test_pickles_in_a_saved_data_set_are_refused(canary: Any, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    datasets.Dataset.from_dict({"prompt": ["Why?"], **TEXTS}).save_to_disk(str(saved))
    (arrow,) = saved.glob("*.arrow")
    table = pickled_values(canary)
    with pa.OSFile(str(arrow), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match=r"extension type|save_to_disk folder"):
        list(read_pairs(DataConfig(path=str(saved))))


def test_builders_are_no_data_sets(canary: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pandas` and `json` would read, and the former unpickle, what lies in the folder one is in."""
    (tmp_path / "train.pkl").write_bytes(canary.pickle)
    monkeypatch.chdir(tmp_path)
    for name in ("pandas", "json", "webdataset"):
        with pytest.raises(UserError, match="not a data set"):
            list(read_pairs(DataConfig(path=name)))


def test_pickles_in_the_groups_of_a_foreign_run_are_refused(canary: Any, tmp_path: Path) -> None:
    """A run folder that somebody hands over: digests and manifest are right, for they were made with it."""
    table = pickled_values(canary, "source")
    folder = tmp_path / "groups" / "train"
    part = write_part(folder, 0, [], [], GROUP_SCHEMA, "f")
    pq.write_table(table, folder / part.file)
    commit(folder, "synthesize", "f", [write_part_entry(folder, part)])
    with pytest.raises(UserError, match=r"extension type 'ray.data.arrow_pickled_object'"):
        list(iter_rows(folder))
    with pytest.raises((UserError, pa.ArrowException)):
        GroupTable(folder)
    for copy in ("groups/eval", "pairs/train", "pairs/eval"):
        shutil.copytree(folder, tmp_path / copy)
    with pytest.raises(UserError, match=r"extension type 'ray.data.arrow_pickled_object'"):
        build_data_card(tmp_path, parse_config({}, "test").synthesis, 0)


def write_part_entry(folder: Path, part: Any) -> Any:
    from dataclasses import replace

    from mapl_ray.data.shards import file_sha256

    return replace(part, sha256=file_sha256(folder / part.file))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "weights.ckpt", "model.pkl"])
def test_pickled_weights_are_refused(name: str, canary: Any, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model, ignore=shutil.ignore_patterns("*.safetensors"))
    (model / name).write_bytes(canary.pickle)
    for load in (lambda: load_policy(model, "float32"), lambda: load_reward_model(model, "float32")):
        with pytest.raises(UserError, match="pickled weights only"):
            load()
    config = parse_config({"model": {"name_or_path": str(model)}}, "test")
    (found,) = (finding for finding in diagnose(config) if finding.what == "model")
    assert found.level == "fail"


def test_an_index_that_leads_elsewhere_is_refused(canary: Any, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.safetensors").write_bytes(b"")
    for number, shard in enumerate(("pytorch_model.bin", "../elsewhere.safetensors", "/etc/passwd", 7, None)):
        model = shutil.copytree(tiny_model, tmp_path / str(number))
        (model / "pytorch_model.bin").write_bytes(canary.pickle)
        index = {"metadata": {}, "weight_map": {"lm_head.weight": shard}}
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(UserError, match="not a safetensors file in this directory"):
            check_model_directory(model)


def test_pickled_adapters_are_refused(canary: Any, tiny_model: Path, tmp_path: Path) -> None:
    adapter = {"peft_type": "LORA", "r": 8, "bias": "none", "base_model_name_or_path": str(tiny_model)}
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "adapter_config.json").write_text(json.dumps(adapter))
    (model / "adapter_model.bin").write_bytes(canary.pickle)
    with pytest.raises(UserError, match="both a model and an adapter"):
        load_policy(model, "float32")
    with pytest.raises(UserError, match="pickles are not read"):  # model.safetensors is there, and is no adapter
        check_lora(str(model), ScoringConfig(gpus_per_engine=1))


def test_code_that_comes_with_a_model_is_not_run(canary: Any, tiny_model: Path, tmp_path: Path) -> None:
    source = f"{canary.code}\nfrom transformers import PretrainedConfig as EvilConfig\n"
    maps = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"), "evil.EvilConfig")
    for model_type in ("llama", "of-its-own"):
        model = shutil.copytree(tiny_model, tmp_path / model_type)
        (model / "evil.py").write_text(source)
        for name in ("config.json", "tokenizer_config.json"):
            values = json.loads((model / name).read_text()) | {"auto_map": maps}
            values |= {"model_type": model_type} if name == "config.json" else {}
            (model / name).write_text(json.dumps(values))
        if model_type == "llama":  # known to transformers: loaded by its own code
            load_tokenizer(model)
            assert load_policy(model, "float32").config.model_type == "llama"
        else:
            with pytest.raises(UserError, match="could not be loaded"):
                load_policy(model, "float32")


def test_what_a_chat_template_can_reach(canary: Any, tiny_model: Path, tmp_path: Path) -> None:
    """Templates are programs of a sandbox: no attributes that lead to Python's own."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    code = base64.b64encode(canary.code.encode()).decode()
    template = "{{ cycler.__init__.__globals__.__builtins__.exec('" + code + "') }}"
    (model / "chat_template.jinja").write_text(template)
    tokenizer = load_tokenizer(model)
    assert tokenizer.chat_template == template
    with pytest.raises(Exception, match=r"unsafe|undefined"):
        tokenizer.apply_chat_template([{"role": "user", "content": "Why?"}], tokenize=False)


def test_without_our_look_transformers_is_asked_for_safetensors(
    canary: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names we look at are not the whole wall: our loaders ask transformers for safetensors and no remote code."""
    model = canary.path.parent / "model"
    shutil.copytree(tiny_model, model, ignore=shutil.ignore_patterns("*.safetensors"))
    (model / "pytorch_model.bin").write_bytes(canary.pickle)
    asked: list[dict[str, Any]] = []
    for auto in (AutoConfig, AutoTokenizer, AutoModelForCausalLM, AutoModelForSequenceClassification):
        original = auto.from_pretrained

        def recorded(*words: Any, one: Any = original, **options: Any) -> Any:
            asked.append(options)
            return one(*words, **options)

        monkeypatch.setattr(auto, "from_pretrained", recorded)
    for place in ("load", "tokenizer"):
        monkeypatch.setattr(f"mapl_ray.models.{place}.check_weights", lambda *_, **__: None)
    for load in (load_policy, load_reward_model):
        with pytest.raises(UserError, match=r"no file named model\.safetensors"):
            load(model, "float32")
    load_tokenizer(model)
    assert len(asked) >= 5
    assert all(options["trust_remote_code"] is False for options in asked)
    # What the loaders leave out, transformers would open: the test would see it.
    with pytest.raises(Exception, match=r"[Ww]eights.only|[Uu]npickl"):
        AutoModelForCausalLM.from_pretrained(model)


def test_what_ranks_send_each_other_is_unpickled_and_security_md_says_so(loud: Any, tmp_path: Path) -> None:
    """torch's own, which this project can't refuse: so its owner must know that the ports are to be closed."""
    alone = not torch.distributed.is_initialized()  # else an earlier test of this process left its group of one
    if alone:
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        torch.distributed.all_gather_object([None], loud.payload)
    finally:
        if alone:
            torch.distributed.destroy_process_group()
    assert loud.path.exists()
    text = " ".join((ROOT / "SECURITY.md").read_text(encoding="utf-8").split())
    _, _, section = text.partition("## Not promised")
    assert "Whoever reaches them can run code as you" in section
    for word in ("`all_gather_object`", "`broadcast_object_list`", "gloo", "pickles", "firewall"):
        assert word in section
