"""Columns of images, sounds and the like: refused before anything that they name is opened."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mapl_ray.config import DataConfig
from mapl_ray.errors import UserError
from mapl_ray.preferences import read_pairs
from mapl_ray.preferences.library_sources import _hub_rows, _numbered, refuse_decoding

TEXTS = {"chosen": ["yes"], "rejected": ["no"]}


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An address on loopback, and what was fetched from it."""
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    one = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=one.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{one.server_address[1]}/secret.png", fetched
    one.shutdown()
    one.server_close()


def saved(folder: Path, column: str, feature: Any, address: str) -> None:
    """A data set with a column whose values are stored as an address: saved, and as files of a hub."""
    stored: Any = {"bytes": None, "path": address}
    plain: Any = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    if isinstance(feature, datasets.List):
        stored, plain = [stored], datasets.List(plain)
    features = datasets.Features({column: feature, **dict.fromkeys(TEXTS, datasets.Value("string"))})
    kinds = datasets.Features({column: plain, **dict.fromkeys(TEXTS, datasets.Value("string"))})
    table = pa.table({column: [stored], **TEXTS}, schema=kinds.arrow_schema)
    # The library would fetch the address to know how large the files become, so the feature is named afterwards.
    datasets.Dataset(datasets.table.InMemoryTable(table)).save_to_disk(str(folder / "saved"))
    about = folder / "saved" / "dataset_info.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"features": features.to_dict()}))
    (folder / "hub" / "data").mkdir(parents=True)
    table = table.replace_schema_metadata(features.arrow_schema.metadata)
    pq.write_table(table, folder / "hub" / "data" / "train.parquet")


def test_a_picture_would_be_fetched(server: tuple[str, list[str]], tmp_path: Path) -> None:
    """What the tests below refuse is not a blank: the library opens the address as soon as the row is read."""
    address, fetched = server
    saved(tmp_path, "prompt", datasets.Image(), address)
    with pytest.raises(Exception, match=r"secret\.png"):
        datasets.load_from_disk(str(tmp_path / "saved"))[0]
    assert fetched


@pytest.mark.parametrize("feature", [datasets.Image(), datasets.List(datasets.Image())], ids=["plain", "nested"])
def test_columns_that_decode_are_refused(feature: Any, server: tuple[str, list[str]], tmp_path: Path) -> None:
    address, fetched = server
    saved(tmp_path, "prompt", feature, address)
    for rows in (
        lambda: list(read_pairs(DataConfig(path=str(tmp_path / "saved")))),
        lambda: list(_hub_rows(DataConfig(path=str(tmp_path / "hub")))),  # to the library as one on the hub
    ):
        with pytest.raises(UserError, match=r"column 'prompt' is of the feature type Image.*Expected text"):
            rows()
    assert fetched == []


@pytest.mark.parametrize("kind", ["Audio", "Video", "Pdf", "Nifti", "Mesh", "BioSequence", "BioStructure"])
def test_every_kind_that_decodes_is_refused(kind: str, tmp_path: Path) -> None:
    saved(tmp_path, "prompt", getattr(datasets.features, kind)(), "/etc/hostname")
    with pytest.raises(UserError, match=rf"feature type {kind}"):
        list(read_pairs(DataConfig(path=str(tmp_path / "saved"))))


def test_every_feature_that_the_library_has_is_text_or_known_here() -> None:
    """A kind that decodes and comes with another version of the library is refused without a change here."""
    kinds = datasets.features.features._FEATURE_TYPES
    decoding = {name for name, kind in kinds.items() if hasattr(kind, "decode_example")}
    named = {"Image", "Audio", "Video", "Pdf", "Nifti", "Mesh", "BioSequence", "BioStructure"}
    assert decoding == {*named, "Json"}


def test_a_picture_in_a_column_that_is_not_read_is_left_out(server: tuple[str, list[str]], tmp_path: Path) -> None:
    address, fetched = server
    saved(tmp_path, "picture", datasets.Image(), address)
    (row,) = _hub_rows(DataConfig(path=str(tmp_path / "hub")))
    assert row.values == {"chosen": "yes", "rejected": "no"}
    assert fetched == []


def test_pictures_inside_of_structs_are_refused() -> None:
    text, picture = datasets.Value("string"), datasets.Image()
    for kind in (
        {"role": text, "content": picture},
        [{"role": text, "content": picture}],
        datasets.List({"role": text, "content": {"inner": picture}}),
        datasets.LargeList(picture),
    ):
        with pytest.raises(UserError, match=r"here: column 'prompt' is of the feature type Image"):
            refuse_decoding({"prompt": kind}, "here")
    refuse_decoding({"prompt": datasets.List({"role": text, "content": text})}, "here")


def test_a_picture_is_refused_where_no_column_is_known(server: tuple[str, list[str]], tmp_path: Path) -> None:
    """Then every column is read, for the message that names them."""
    address, fetched = server
    saved(tmp_path, "picture", datasets.Image(), address)
    data = datasets.load_from_disk(str(tmp_path / "saved"))
    with pytest.raises(UserError, match=r"here: column 'picture' is of the feature type Image"):
        list(_numbered(data, frozenset({"prompt"}), "here"))
    assert fetched == []
