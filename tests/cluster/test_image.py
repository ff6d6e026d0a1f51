"""The image recipe, as far as that goes without building it."""

import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def instructions(root: Path) -> list[tuple[str, str]]:
    """(instruction, arguments) of each line of the Dockerfile, continuations joined."""
    text = (root / "cluster" / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def test_it_is_python_3_11(instructions: list[tuple[str, str]]) -> None:
    """The version that the lock is for."""
    assert instructions[:2] == [("ARG", "PYTHON_IMAGE=python:3.11-slim-bookworm"), ("FROM", "${PYTHON_IMAGE}")]


def test_it_is_built_from_the_lock_and_checks_hashes(instructions: list[tuple[str, str]]) -> None:
    """All that pip installs there but this package itself, which comes last and brings nothing along."""
    assert ("COPY", "locks/gpu.txt ./") in instructions
    installs = [words for name, words in instructions if name == "RUN" and "pip install" in words]
    assert len(installs) == 2
    assert "--require-hashes --no-deps --no-build-isolation --requirement gpu.txt" in installs[0]
    assert "--no-deps --no-build-isolation ." in installs[1]


def test_it_ends_as_a_user_without_rights(instructions: list[tuple[str, str]]) -> None:
    names = [name for name, _ in instructions]
    # A number: Kubernetes cannot tell that a name is not root. The manifests run as the same.
    assert [words for name, words in instructions if name == "USER"] == ["1000"]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name == "RUN")
    assert "EXPOSE" not in names


def test_everything_it_copies_is_there_and_let_through(root: Path, instructions: list[tuple[str, str]]) -> None:
    ignore = (root / "cluster" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore  # nothing but what is named
    sources = [source for name, words in instructions if name == "COPY" for source in words.split()[:-1]]
    assert sources
    for source in sources:
        assert f"!{source}" in ignore
        if source != "README.md":
            assert (root / source).exists()
