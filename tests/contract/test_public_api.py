"""`import mapl_ray` is light, and everything it declares is there."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import mapl_ray

HEAVY = ("torch", "transformers", "datasets", "ray", "deepspeed", "vllm")
LOAD = f"""
import json, sys
import mapl_ray
mapl_ray.read_pairs, mapl_ray.synthesize, mapl_ray.REGISTRY, mapl_ray.TrainConfig
light = [name for name in {HEAVY} if name in sys.modules]
for name in mapl_ray.__all__:
    getattr(mapl_ray, name)
print(json.dumps([light, [name for name in ("ray", "deepspeed", "vllm") if name in sys.modules]]))
"""


def test_import_loads_nothing_heavy_and_every_name_resolves() -> None:
    """Pairs, synthesis and config need no torch; no public name needs Ray, DeepSpeed or vLLM."""
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[], []]


def test_what_type_checkers_see_is_what_is_declared() -> None:
    tree = ast.parse(Path(mapl_ray.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = [alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(mapl_ray.__all__) == sorted(seen)
