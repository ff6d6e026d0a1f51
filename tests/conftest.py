"""Fixtures that several test folders share."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
from pyarrow import fs

from mapl_ray.config import TinyModelConfig
from mapl_ray.data.records import InstructionRecord, Level, Message, Relation, RelationGroup, Sequence
from mapl_ray.instructions.types import _FUNCTIONS
from mapl_ray.models import build_tiny, load_reward_model, load_tokenizer
from tests.shared_ray import SharedRay

# An example that takes long says that the machine is busy; Hypothesis would call it a failure after 200 ms.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
_VOCABULARY = (
    "river stone bread lamp garden winter paper music copper window quiet yellow seven forest the a of and to in is it "
    "with for on slow bright every open small early"
)
WORDS = _VOCABULARY.split()
LEFT_OUT = ("multihost_whole", "long", "faults")  # markers of tests that run only where `-m` says what to run
GroupMaker = Callable[[int], list[RelationGroup]]


@pytest.hookimpl(optionalhook=True)  # known where pytest-xdist is installed
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Two processes of a whole run: tests/schedule.py."""
    from tests.schedule import GroupScheduling

    return GroupScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes and has a command of its own; the rest in the order of tests/schedule.py."""
    unnamed = () if config.option.markexpr else LEFT_OUT
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in unnamed)]
    config.hook.pytest_deselected(items=left_out)
    dropped = set(left_out)
    items[:] = [item for item in items if item not in dropped]
    if hasattr(config, "workerinput"):  # one of several processes
        from tests.schedule import longest_first

        longest_first(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """After the fixtures of the test, and of its file if it was the last there."""
    yield
    if hasattr(item.config, "workerinput"):  # else the files of a group don't follow each other
        from tests.schedule import end_shared

        end_shared(item, nextitem)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real preference data; tests that need it are skipped, with a message, where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real preference data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def own_functions_go_with_their_test() -> Iterator[None]:
    """Instruction functions that a test registers are not drawn by the tests after it."""
    before = dict(_FUNCTIONS)
    yield
    _FUNCTIONS.clear()
    _FUNCTIONS.update(before)


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[SharedRay]:
    """The cluster of this process, up or not."""
    shared = SharedRay()
    yield shared
    shared.stop()


@pytest.fixture(scope="module")
def local_ray(shared_ray: SharedRay) -> None:
    """A connected private Ray cluster, as `mapl` starts one. Other files use it as well."""
    shared_ray.start()


@pytest.fixture(scope="module")
def without_ray(shared_ray: SharedRay) -> None:
    """No Ray in this process: for tests that connect to a cluster of their own."""
    shared_ray.stop()


@pytest.fixture(scope="session")
def checkers(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The registry of IFEval's checkers.

    The module asks for NLTK's sentence splitter when it is imported, and would download it. Tests use nothing that
    splits sentences, so an empty folder of that name will do.
    """
    folder = tmp_path_factory.mktemp("nltk")
    (folder / "tokenizers" / "punkt_tab").mkdir(parents=True)
    import nltk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk.data, "path", [str(folder)])
        from lm_eval.tasks.ifeval import instructions_registry
    return instructions_registry


def _text(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


def grid_group(index: int) -> RelationGroup:
    """A grid group of made-up words with every relation of docs/method.md; the same for the same index.

    Even groups have two responses that begin alike, so that their tree branches inside the response.
    """
    rng = random.Random(index)
    prompt = _text(rng, 5, 12)
    start = _text(rng, 2, 3) + " " if index % 2 == 0 else ""
    sides = ["Use at least 10 words.", "Use at most 9 words."]
    texts = [prompt, *(f"{prompt} {side}" for side in sides)]
    records = [InstructionRecord("made_up", side, {"n": 10}) for side in sides]
    flags = ((), (), (True,), (False,), (False,), (True,))
    return RelationGroup(
        pair_id=f"pair-{index:04d}",
        prompts=tuple((Message("user", text),) for text in texts),
        instructions=((), (records[0],), (records[1],)),
        responses=(start + _text(rng, 10, 20), start + _text(rng, 4, 9)),
        sequences=tuple(Sequence(n // 2, n % 2, flags[n]) for n in range(6)),
        relations=(
            Relation(Level.PREF, (0,), (1,)),
            Relation(Level.INTRA, (2,), (4,)),
            Relation(Level.INTRA, (5,), (3,)),
            Relation(Level.INTER_WIDENING, (2, 1), (3, 0)),
            Relation(Level.INTER_NARROWING, (0, 5), (1, 4)),
        ),
        source="made-up",
        ref_logps=tuple(-30.0 - rng.random() for _ in range(6)),
    )


@pytest.fixture(scope="session")
def grid_groups() -> GroupMaker:
    """`grid_groups(n)` makes n groups."""
    return lambda number: [grid_group(index) for index in range(number)]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with two layers and its tokenizer, as a directory."""
    config = TinyModelConfig(vocab_size=400, hidden_size=64, num_layers=2, num_heads=2, max_position_embeddings=512)
    texts = [" ".join(WORDS), *(text for i in range(20) for text in grid_group(i).responses)]
    return build_tiny(tmp_path_factory.mktemp("models") / "tiny", texts, config, seed=1)


@pytest.fixture(scope="session")
def tiny_reward_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model` with a scalar head, as `mapl train rm` leaves one."""
    from mapl_ray.training.export import export_model  # DeepSpeed takes seconds

    folder = tmp_path_factory.mktemp("models") / "tiny-rm"
    export_model(
        load_reward_model(tiny_model, "float32", seed=7), load_tokenizer(tiny_model), None, folder, "A test's."
    )
    return folder


@pytest.fixture(scope="session")
def judge_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_model`, but `yes`, `no`, `Yes` and `No` are tokens, alone and after a space; most else is bytes."""
    config = TinyModelConfig(vocab_size=700, hidden_size=64, num_layers=2, num_heads=2, max_position_embeddings=1024)
    texts = ["yes", "no", "Yes", "No", "say yes or no, Yes or No, no or yes"] * 20
    return build_tiny(tmp_path_factory.mktemp("models") / "judge", texts, config, seed=3)


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Any:
    """The tokenizer of `tiny_model`."""
    return load_tokenizer(tiny_model)


STORE_KEY = {"ACCESS_KEY": "test", "SECRET_KEY": "a-secret-of-the-test"}


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """One bucket, `bucket`, of a server on loopback."""

    root: str  # of URIs
    address: str
    query: str  # of a URI: where the server is, and how to talk to it

    def uri(self, path: str) -> str:
        """Of a file or folder in the bucket."""
        return f"{self.root}/{path}?{self.query}"

    def upload(self, folder: Path, path: str) -> str:
        """Copy a local folder; the URI of the copy."""
        system, _ = fs.FileSystem.from_uri(self.uri(""))
        fs.copy_files(str(folder), f"bucket/{path}", destination_filesystem=system)
        return self.uri(path)


@contextmanager
def serving(*command: str, **environment: str) -> Iterator[str]:
    """A Python module as a server, `--host` and `--port` added; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(words, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, f"{command[0]} did not start"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real S3 server, which checks signatures; the credentials for it are in the environment."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "bucket").mkdir()
    words = ("nanio", "serve", "--data-dir", str(folder), "--no-access-log", "--log-level", "error")
    environment = {f"NANIO_{name}": value for name, value in STORE_KEY.items()}
    with serving(*words, **environment) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", STORE_KEY["ACCESS_KEY"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", STORE_KEY["SECRET_KEY"])
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")  # this server knows no trailing checksums
        yield ObjectStore("s3://bucket", address, f"endpoint_override={address}&scheme=http&region=us-east-1")


@pytest.fixture(scope="session")
def google_store() -> Iterator[ObjectStore]:
    """An emulator of Google's object store; anybody may read and write."""
    with serving("gcp_storage_emulator", "start", "--quiet", "--in-memory", "--default-bucket", "bucket") as address:
        query = f"endpoint_override={address}&scheme=http&retry_limit_seconds=5"
        yield ObjectStore("gs://anonymous@bucket", address, query)
