"""The table of docs/instructions.md is the registry, row by row."""

import re
from pathlib import Path

from mapl_ray.instructions import REGISTRY

DOCS = Path(__file__).resolve().parents[2] / "docs" / "instructions.md"
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (\w+) \| (yes)? *\| (.+) \|$", re.MULTILINE)


def test_every_function_is_in_the_docs() -> None:
    rows = _ROW.findall(DOCS.read_text(encoding="utf-8"))
    told = {name: (family, sides, mapped == "yes") for name, family, sides, mapped, _ in rows}
    assert len(told) == len(rows)
    assert told == {n: (f.family, f.sides, f.ifeval is not None) for n, f in REGISTRY.items()}
    assert all(example.endswith(".") for *_, example in rows)


def test_the_example_of_ones_own_function_works(tmp_path: Path) -> None:
    import random

    from mapl_ray.config import SynthesisConfig
    from mapl_ray.instructions.types import _FUNCTIONS
    from mapl_ray.synthesis import select_functions

    text = DOCS.read_text(encoding="utf-8")
    code = re.search(r"```python\n# my_functions.py\n(.*?)```", text, re.DOTALL)
    assert code is not None
    path = tmp_path / "my_functions.py"
    path.write_text(code[1], encoding="utf-8")
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 15
    try:
        functions = select_functions(SynthesisConfig(modules=(str(path),), functions=("currency_sign",)))
        assert [function.name for function in functions] == ["currency_sign"]
        for flag in (True, False):
            instruction = functions[0].generate("It costs 5 €.", flag, random.Random(0))
            assert instruction is not None
            assert instruction.check("It costs 5 €.") == flag
    finally:
        _FUNCTIONS.pop("currency_sign", None)
