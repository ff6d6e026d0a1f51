"""Functions of one's own: imported where they are named, once, and told precisely where they break."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mapl_ray.config import SynthesisConfig
from mapl_ray.data.records import Message, PreferencePair, RelationGroup
from mapl_ray.errors import UserError
from mapl_ray.instructions import REGISTRY
from mapl_ray.synthesis import load_modules, module_digests, select_functions, synthesize, with_absolute_paths

SOURCE = """
from mapl_ray.instructions import instruction_function

@instruction_function(
    family="topic",
    check=lambda text, args: (args["sign"] in text.text) == args["use"],
    phrasings=lambda args: [("Use" if args["use"] else "Do not use") + f" the sign {args['sign']}."],
)
def NAME(case, rng):
    sign = rng.choice("$%")
    sides = {(sign in text.text) == flag for text, flag in case.flags}
    return {"sign": sign, "use": sides.pop()} if len(sides) == 1 else None
"""
PAIR = PreferencePair("p", (Message("user", "Price?"),), "It costs $5 for a day.", "It is 7% of all.", "test")


def write(path: Path, name: str, text: str = SOURCE) -> str:
    path.write_text(text.replace("NAME", name), encoding="utf-8")
    return str(path)


def test_a_path(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "currency_sign")
    config = SynthesisConfig(modules=(path,), functions=("currency_sign",), max_instructions=1)
    group = synthesize(PAIR, config, 0)
    assert isinstance(group, RelationGroup)
    assert {record.name for record in group.instructions[1]} == {"currency_sign"}
    assert synthesize(PAIR, config, 0) == group  # imported once, however often it is named
    assert REGISTRY["currency_sign"].family == "topic"
    allowed = SynthesisConfig(modules=(path,), held_out_families=("topic",))
    assert REGISTRY["currency_sign"] in select_functions(allowed)  # its family is known, too
    assert REGISTRY["currency_sign"] not in select_functions(allowed.for_training())


def test_a_name_and_the_same_file_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "sign_by_name.py", "sign_by_name")
    monkeypatch.syspath_prepend(str(tmp_path))
    load_modules(["sign_by_name", path])
    load_modules([path, "sign_by_name"])
    assert "sign_by_name" in REGISTRY
    assert module_digests(["sign_by_name"]) == module_digests([path])


def test_a_fresh_process_knows_the_functions_by_the_config_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "fresh_sign")
    code = (
        "import sys; from mapl_ray.config import SynthesisConfig; from mapl_ray.synthesis import synthesize\n"
        "from mapl_ray.data.records import Message, PreferencePair\n"
        f"pair = PreferencePair('p', (Message('user', 'Price?'),), {PAIR.chosen!r}, {PAIR.rejected!r}, 'test')\n"
        f"group = synthesize(pair, SynthesisConfig(modules=({path!r},), functions=('fresh_sign',)), 0)\n"
        "print(group.instructions[1][0].name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "fresh_sign"


@pytest.mark.parametrize(
    ("text", "line", "error"),
    [
        ("import mapl_ray\n\nx = 1 / 0\n", 3, "ZeroDivisionError: division by zero"),
        ("x = 1\ndef broken(:\n", 2, "SyntaxError"),
        ("import no_such_module_at_all\n", 1, "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        (SOURCE.replace("NAME", "word_count"), 4, "word_count' is already registered"),
    ],
)
def test_what_breaks_is_named(text: str, line: int, error: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as told:
        load_modules([str(path)])
    assert f"broken.py, line {line}: " in str(told.value)
    assert error in str(told.value)


def test_after_a_mistake_is_mended(tmp_path: Path) -> None:
    path = write(tmp_path / "fixed.py", "mended_sign", SOURCE + "raise ValueError('not yet')\n")
    with pytest.raises(UserError, match="not yet"):
        load_modules([path])
    assert "mended_sign" not in REGISTRY  # what it had registered is taken back
    write(tmp_path / "fixed.py", "mended_sign")
    load_modules([path])
    assert "mended_sign" in REGISTRY


@pytest.mark.parametrize(
    "name", ["no_such_module_at_all", "gone.py", "folder/", "https://example.org/x.py", "..relative", "sys"]
)
def test_what_is_no_module(name: str) -> None:
    with pytest.raises(UserError, match=r"synthesis.modules.*on a cluster it must be installed on every node"):
        load_modules([name])


def test_a_file_that_changes_under_a_running_process(tmp_path: Path) -> None:
    path = write(tmp_path / "changing.py", "changing_sign")
    first = module_digests([path])
    assert module_digests([path]) == first
    write(tmp_path / "changing.py", "changing_sign", SOURCE + "# more\n")
    with pytest.raises(UserError, match=r"changing.py has changed since"):
        module_digests([path])


def test_workers_get_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = with_absolute_paths(SynthesisConfig(modules=("a.py", "pkg.b")))
    assert config.modules == (str(tmp_path / "a.py"), "pkg.b")
