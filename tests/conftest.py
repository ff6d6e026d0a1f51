"""Fixtures that several test folders share."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real preference data; tests that need it are skipped, with a word, where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real preference data at {SHARED_DATA}")
    return SHARED_DATA
