"""The two ways a run ends badly; `cli.py` turns them into exit codes, never into a traceback."""

from __future__ import annotations


class UserError(Exception):
    """The user's mistake, found before work starts: exit code 2.

    The message names the thing (file, row, field, value), says what was expected and what to do.
    """


class RunError(Exception):
    """A failure in mid-run (non-finite loss, engine that will not start): exit code 1."""


def first_line(error: Exception) -> str:
    """What an error says, as far as a sentence of ours can take it; its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
