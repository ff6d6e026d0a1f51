"""Refuse to send secrets with a job: Ray shows entry points, metadata and environments to anyone who can list jobs.

A secret is recognized by the name of its environment variable, by the file that holds it, or by its pattern (tokens of
Hugging Face, GitHub, AWS, ...). Texts are searched as written and as parsed by YAML.
"""

from __future__ import annotations

import base64
import configparser
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from mapl_ray.config.strict_yaml import load_yaml
from mapl_ray.errors import UserError

_SHORTEST = 8  # a shorter value is a switch, or would match everywhere
_MOST_BYTES = 2**20  # size limit of a credentials file

# Words of a variable's name, between underscores. `KEY` ends a word: APIKEY, ACCESSKEY, KEY2.
_WORDS = re.compile(
    r"(^|_)(\w*TOKEN|\w*SECRET|PASS|\w*PASSWORD|\w*PASSWD|\w*PASSPHRASE|\w+PWD|PWD\d|CREDENTIAL|CRED|"
    r"(API|ACCESS|SECRET|PRIVATE|SIGNING|ENCRYPTION|ACCOUNT|MASTER|DEPLOY|SSH|GPG|RSA)?KEY|AUTH|AUTHORIZATION|BEARER|JWT|"
    r"PAT|SAS|DSN|COOKIE|WEBHOOK|CONNECTION_?STRING|CONN_?STR)S?\d*(_|$)",
    re.IGNORECASE,
)
_DB_PWD = re.compile(r"(^|_)(DB|\w*SQL|DATABASE|REDIS|MONGO|PG|SMTP|LDAP|FTP|ADMIN|ROOT|USER)_?PWD\d*$", re.IGNORECASE)
# Names whose last word shows that the value is no secret: a path, a switch, a number.
_HARMLESS = re.compile(
    r"(^(OLD)?PWD$)|_(PATH|FILE|DIR|FOLDER|SOCK|SOCKET|MODE|METHOD|ENABLED|DISABLED|TIMEOUT|LIMIT|LENGTH|COUNT|TTL|"
    r"PARALLELISM|PROVIDER|TYPE)$",
    re.IGNORECASE,
)
# Tokens recognized by the prefix of their service.
_SHAPES = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "a GitHub token": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})"),
    "a GitLab token": re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}"),
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{32,}"),
    "a Google API key": re.compile(r"\bAIza[A-Za-z0-9_-]{35}"),
    "a Slack token": re.compile(r"\bxox[abeprs]-[A-Za-z0-9-]{20,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}


def refuse_secrets(texts: Mapping[str, str]) -> None:
    """Raise `UserError` if a text holds a secret of this machine, or a value with the pattern of a secret.

    Args:
        texts: texts to send (YAML, or one override per line), by their name in the message. The message shows no
            value.
    """
    written = {what: "\n".join((text, *_parsed(text))) for what, text in texts.items()}
    for what, text in written.items():
        for kind, shape in _SHAPES.items():
            if shape.search(text):
                raise UserError(_message(what, kind))
    for where, value in _secrets():
        for what, text in written.items():
            if len(value) >= _SHORTEST and any(form in text for form in _forms(value)):
                raise UserError(_message(what, f"the value of {where}"))


def _parsed(text: str) -> Iterator[str]:
    """Strings in the parsed YAML of a text and its override values: escapes can hide a secret from a plain search."""
    overrides = (line.partition("=")[2] for line in text.splitlines() if "=" in line)
    for document in (text, *overrides):
        with suppress(yaml.YAMLError):
            yield from _strings(load_yaml(document))


def _strings(node: object) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from (*_strings(key), *_strings(value))
    elif isinstance(node, list):
        for one in node:
            yield from _strings(one)
    elif node is not None:
        yield str(node)


def _message(what: str, found: str) -> str:
    return (
        f"{what} holds {found}. Anyone who can list the cluster's jobs could read it. Remove it, and use the cluster's "
        "own environment or secrets instead (docs/cluster.md)."
    )


def _forms(value: str) -> tuple[str, ...]:
    return value, base64.b64encode(value.encode()).decode().rstrip("=")


def _secrets() -> Iterator[tuple[str, str]]:
    """Each secret of this machine: where it is stored, and its value."""
    for name, value in os.environ.items():
        yield from ((f"{name} (the password in its address)", found) for found in _password_of(value))
        named = _WORDS.search(name) or _DB_PWD.search(name)
        if named and not _HARMLESS.search(name) and not _is_path(value):
            yield name, value.strip()
    home = Path.home()
    # One token per cluster, in a folder named after the cluster.
    tokens = {str(path.relative_to(home)): _whole for path in home.glob(".ray/*/auth_token")}
    for file, read in {**_FILES, **tokens}.items():
        with suppress(OSError, ValueError, configparser.Error, TypeError, AttributeError):
            path = home / file
            if path.stat().st_size <= _MOST_BYTES:
                yield from ((f"a secret in ~/{file}", value) for value in read(path.read_text(encoding="utf-8")))


def _is_path(value: str) -> bool:
    with suppress(OSError, ValueError):
        return value.startswith(("/", "~", "./")) and Path(value).expanduser().exists()
    return False


def _password_of(value: str) -> list[str]:
    """The password in an address like postgres://user:password@host, as written and unescaped."""
    if "://" not in value or "@" not in value:
        return []
    with suppress(ValueError):
        if password := urlsplit(value).password:
            return [password, unquote(password)]
    return []


# --- files that hold credentials ---


def _whole(text: str) -> list[str]:
    return [text.strip()]


def _netrc(text: str) -> list[str]:
    words = text.split()
    return [after for word, after in pairwise(words) if word == "password"]


def _ini(text: str) -> list[str]:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    sections = (parser[name] for name in parser.sections())
    return [value for section in sections for key, value in section.items() if _WORDS.search(key)]


def _json(text: str) -> list[str]:
    return list(_named(json.loads(text), secret=False))


def _named(node: object, *, secret: bool) -> Iterator[str]:
    """Strings below keys that name a secret."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _named(value, secret=secret or _WORDS.search(str(key)) is not None)
    elif isinstance(node, str) and secret:
        yield node
    elif isinstance(node, Iterable) and not isinstance(node, str):
        for one in node:
            yield from _named(one, secret=secret)


def _addresses(text: str) -> list[str]:
    return [password for line in text.splitlines() for password in _password_of(line.strip())]


_FILES = {
    ".cache/huggingface/token": _whole,
    ".huggingface/token": _whole,
    ".ray/auth_token": _whole,
    ".netrc": _netrc,  # W&B keeps its key here
    "_netrc": _netrc,
    ".git-credentials": _addresses,
    ".aws/credentials": _ini,
    ".mlflow/credentials": _ini,
    ".pypirc": _ini,
    ".kaggle/kaggle.json": _json,
    ".docker/config.json": _json,
    ".config/gcloud/application_default_credentials.json": _json,
}
