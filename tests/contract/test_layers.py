"""The house: what a layer may import, where the heavy libraries are, and how large a file may be."""

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "mapl_ray"
HEAVY = ("ray", "vllm", "deepspeed")
# From top to bottom: a layer imports itself and what stands before it.
ORDER = (
    "errors", "lazy", "addresses", "unfinished", "awaited", "private_files", "progress", "versions", "data", "config",
    "aside", "lease", "storage", "preferences", "hub_models", "model_copies", "instructions", "synthesis",
    "batches", "objective", "models", "scoring", "training", "evaluation", "tuning", "report", "distributed",
    "model_states", "planning", "doctor", "cli",
)  # fmt: skip
ALLOWED = {"distributed": {"ray"}}
IMPORTERS = {
    "vllm": {"scoring/engine.py"},
    "deepspeed": {f"training/{name}.py" for name in ("deepspeed_engine", "sequence_ranks", "weight_groups")},
}


def files() -> list[Path]:
    """Of all layers; `mapl_ray/__init__.py` stands above them (test_public_api.py)."""
    return sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` is an import of the module.
            folder = PACKAGE.parent / Path(*node.module.split("."))
            inner = {a.name for a in node.names if (folder / f"{a.name}.py").is_file()}
            found |= {f"{node.module}.{name}" for name in inner}
            if len(inner) < len(node.names):
                found.add(node.module)
    return found


def layer_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def test_every_layer_has_its_place() -> None:
    layers = {layer_of(file) for file in files()}
    assert layers == set(ORDER)


def test_data_flows_one_way() -> None:
    wrong = []
    for file in files():
        layer = layer_of(file)
        for name in imports(file):
            parts = name.split(".")
            if parts[0] == "mapl_ray" and len(parts) > 1 and ORDER.index(parts[1]) > ORDER.index(layer):
                wrong.append(f"{file.relative_to(PACKAGE)} imports {name}")
    assert wrong == []


def test_no_import_cycles() -> None:
    modules = {".".join(("mapl_ray", *f.relative_to(PACKAGE).with_suffix("").parts)): f for f in files()}
    by_name = {name.removesuffix(".__init__"): name for name in modules}
    graph = {
        name: {by_name[i] for i in imports(file) if i in by_name and by_name[i] != name}
        for name, file in modules.items()
    }
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert len(order) == len(modules)


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_are_imported_in_one_place(library: str) -> None:
    found = {
        str(file.relative_to(PACKAGE)) for file in files() if any(i.split(".")[0] == library for i in imports(file))
    }
    if library == "ray":
        assert found
        assert all(name.startswith("distributed/") for name in found)
    else:
        assert found == IMPORTERS[library]


# Imports every layer it is given, in this order, and prints which heavy libraries came with each.
LOAD = """
import importlib, json, sys
heavy, found = json.loads(sys.argv[1]), {}
for layer in sys.argv[2:]:
    before = set(sys.modules)
    importlib.import_module(f"mapl_ray.{layer}")
    found[layer] = [name for name in heavy if name in sys.modules and name not in before]
print(json.dumps(found))
"""


def test_layers_load_without_what_they_may_not_know() -> None:
    """The maths runs without Ray, vLLM or DeepSpeed, and a driver starts without DeepSpeed. In one process: layers that
    may load less first."""
    allowed = {layer: ALLOWED.get(layer, set()) for layer in ORDER}
    order = sorted(ORDER, key=lambda layer: ("ray" in allowed[layer], len(allowed[layer])))
    command = [sys.executable, "-c", LOAD, json.dumps(HEAVY), *order]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert {layer: names for layer, names in loaded.items() if not set(names) <= allowed[layer]} == {}
    assert set(loaded) == set(ORDER)


def test_help_and_mistakes_of_a_config_load_no_heavy_library() -> None:
    code = (
        "import contextlib, sys\nfrom mapl_ray.cli import main\n"
        "with contextlib.suppress(SystemExit):\n    main(['--help'])\n"
        "assert main(['train', 'rm', 'train.zero_stage=9']) == 2\n"
        f"print(*sorted({{'torch', 'transformers', *{HEAVY}}} & {{*sys.modules}}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, ""), done.stderr


def test_files_are_small() -> None:
    large = {str(f.relative_to(PACKAGE)): n for f in files() if (n := len(f.read_text().splitlines())) > 400}
    assert large == {}


def test_package_files_define_nothing() -> None:
    for file in PACKAGE.rglob("__init__.py"):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        lazy = [node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        body += [inner for node in lazy for inner in node.body]
        kinds = {type(node) for node in body if node not in lazy and not isinstance(node, ast.Expr)}
        assert kinds <= {ast.ImportFrom, ast.Assign}, file


def test_sums_are_in_an_order_that_stays() -> None:
    """On a GPU these add in any order, so that a resumed run would not be equal to the bit."""
    names = ("index_add", "scatter_add", "scatter_reduce")
    assert not [str(f) for f in files() if any(f".{name}" in f.read_text(encoding="utf-8") for name in names)]
