"""A canary: a file that appears if anything hostile runs."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Canary:
    """What hostile input tries to make."""

    path: Path

    @property
    def code(self) -> str:
        """Python that makes it."""
        return f"open({str(self.path)!r}, 'w').close()"

    @property
    def pickle(self) -> bytes:
        """A pickle that makes it when it is opened."""
        return pickle.dumps(self.payload)

    @property
    def payload(self) -> Any:
        """An object whose pickle it is."""
        return _Payload(self.code)

    @property
    def shell(self) -> list[str]:
        """Words that make it if a shell reads them unquoted."""
        file = self.path
        return [
            f"$(touch {file})", f"`touch {file}`", f"; touch {file} ;", f"| touch {file}", f"&& touch {file}",
            f"x\ntouch {file}", f"' ; touch {file} ; '", f'" ; touch {file} ; "', f"> {file}",
            f"${{x:-$(touch {file})}}",
        ]  # fmt: skip


class _Payload:
    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return exec, (self.code,)


@pytest.fixture
def loud(tmp_path: Path) -> Canary:
    """One that may appear, to see that it would."""
    return Canary(tmp_path / "fired")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    """A canary that must not have appeared when the test ends."""
    one = Canary(tmp_path / "canary")
    yield one
    assert not one.path.exists(), "something hostile was run"
