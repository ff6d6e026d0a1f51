"""Decontamination: find pairs whose prompt is a benchmark prompt or shares a long run of words with one."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Self, cast

from mapl_ray.config import DataConfig
from mapl_ray.data.records import PreferencePair
from mapl_ray.errors import UserError
from mapl_ray.preferences.content import refuse_other_content
from mapl_ray.preferences.files import file_kind, read_file, readable
from mapl_ray.preferences.normal_form import normalise
from mapl_ray.preferences.remote import is_uri, remote_files

_COLUMNS = ("prompt", "input", "question", "instruction")


@dataclass(frozen=True, slots=True)
class _Benchmark:
    """One file of prompts."""

    path: PurePath
    open: Callable[[], BinaryIO]
    identity: str | None  # size and modification time of a remote file; None for a local file, which has a digest


@dataclass(frozen=True, slots=True)
class Contamination:
    """Benchmark prompts and their runs of words, which must not be trained on, each with the place it came from."""

    prompts: dict[str, str]
    runs: dict[tuple[str, ...], str]
    length: int  # words per run

    @classmethod
    def load(cls, config: DataConfig) -> Self:
        """Read `config.benchmarks`: local files or URIs.

        Raises `UserError` for a file that is missing, can't be read, has an unreadable row, or holds no prompts:
        skipped prompts could be trained on.
        """
        prompts: dict[str, str] = {}
        runs: dict[tuple[str, ...], str] = {}
        for file in _files(config):
            found = False
            for place, text in _prompts(file):
                found = True
                prompts.setdefault(normalise(text), place)
                for run in _runs(text, config.benchmark_ngram):
                    runs.setdefault(run, place)
            if not found:
                raise UserError(
                    f"data.benchmarks: {file.path} holds no prompts. Expected a .txt file with one prompt per line, or "
                    f"a .jsonl, .csv or .parquet file with a column {', '.join(_COLUMNS)}, as text or messages."
                )
        return cls(prompts, runs, config.benchmark_ngram)

    def found(self, pair: PreferencePair) -> str | None:
        """Reason why the pair must not be trained on, with the benchmark's file and row; None if there is none."""
        if not self.prompts:
            return None
        for message in pair.prompt:
            if message.role != "user":
                continue
            if (place := self.prompts.get(normalise(message.content))) is not None:
                return f"a user turn is the benchmark prompt {place}"
            for run in _runs(message.content, self.length):
                if run in self.runs:
                    return f"a user turn shares {self.length} words with the benchmark prompt {self.runs[run]}"
        return None


def benchmark_digests(config: DataConfig) -> list[str]:
    """Identity of every file of `config.benchmarks`: its sha256, or path, size and modification time of a remote file.

    Raises `UserError` for a file that is missing or can't be read.
    """
    digests = []
    for file in _files(config):
        if file.identity is not None:
            digests.append(f"{file.path} {file.identity}")
            continue
        with readable(file.path), file.open() as handle:
            digests.append(hashlib.file_digest(cast(Any, handle), "sha256").hexdigest())
    return digests


def _files(config: DataConfig) -> list[_Benchmark]:
    files = [_remote(name) if is_uri(name) else _local(name) for name in config.benchmarks]
    for file in files:
        if not _is_text(file.path) and file_kind(file.path) is None:
            raise UserError(f"data.benchmarks: {file.path}: expected .txt, .jsonl, .json, .csv (also .gz) or .parquet.")
    return files


def _local(name: str) -> _Benchmark:
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"data.benchmarks: {path}: no such file (looked from {Path.cwd()}).")
    return _Benchmark(path, lambda: path.open("rb"), None)


def _remote(uri: str) -> _Benchmark:
    file, *others = remote_files(uri, "data.benchmarks")
    if others:
        raise UserError(f"data.benchmarks: {uri!r} is a folder. Expected a file: list each file of the folder.")
    return _Benchmark(file.path, file.open, file.identity)


def _is_text(path: PurePath) -> bool:
    return path.suffix.lower() == ".txt"


def _prompts(file: _Benchmark) -> Iterator[tuple[str, str]]:
    """(place, text) of every prompt of a file."""
    if _is_text(file.path):
        # Iterating splits at line breaks only; `splitlines` would also split at other separators.
        with readable(file.path), file.open() as handle, io.TextIOWrapper(handle, encoding="utf-8-sig") as lines:
            refuse_other_content(file.path, handle, ".txt")
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{file.path.name}:{number}", line
        return
    for raw in read_file(file.path, frozenset(_COLUMNS), file.open):
        if raw.values is None:
            raise UserError(f"data.benchmarks: {file.path}: {raw.problem}. Fix the row, or remove it.")
        for text in _texts(raw.values):
            if text.strip():
                yield f"{file.path.name}, row {raw.row}", text


def _texts(values: Mapping[str, Any]) -> Iterator[str]:
    for column in _COLUMNS:
        value = values.get(column)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            turns = [turn for turn in value if isinstance(turn, dict) and turn.get("role") == "user"]
            yield from (turn["content"] for turn in turns if isinstance(turn.get("content"), str))
    instruction, given = values.get("instruction"), values.get("input")
    if isinstance(instruction, str) and isinstance(given, str):
        yield f"{instruction}\n\n{given}"  # `formats.py` builds the prompt of such rows this way


def _runs(text: str, length: int) -> Iterator[tuple[str, ...]]:
    words = normalise(text).split()
    for start in range(len(words) - length + 1):
        yield tuple(words[start : start + length])
