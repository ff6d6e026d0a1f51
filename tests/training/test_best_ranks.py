"""On real ranks, `best/` is what an export at the best step would have written, to the byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.training.checkpoint import best_directory, checkpoint_path, committed

CONFIG = {
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "max_sequence_tokens": 256,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": 5,
    "epochs": 9,
    "eval_every_steps": 1,
    "checkpoint_every_steps": 2,
    "checkpoints_to_keep": 1,
    "loggers": [],
}
BF16 = {"bf16": True}
LORA = {"lora": {"r": 4, "alpha": 8}}
# The best step -> scores: one with a checkpoint, which is removed before the end, one without, and the last.
SCORES = {best: {str(step): 0.9 if step == best else 0.1 * (step % 2) for step in range(1, 6)} for best in (2, 3, 5)}
# name -> ranks, best step, changes to the config
RUNS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "stage 2": (2, 3, {"zero_stage": 2}),
    "stage 3, a checkpoint": (2, 2, {"zero_stage": 3}),
    "bf16, stage 3": (2, 2, {"zero_stage": 3, **BF16}),
    "lora, stage 2": (2, 3, {"zero_stage": 2, **LORA}),
}
MORE_RUNS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "one rank, stage 0": (1, 2, {"zero_stage": 0}),
    "one rank, stage 3": (1, 3, {"zero_stage": 3}),
    "stage 0": (2, 3, {"zero_stage": 0}),
    "stage 1": (2, 2, {"zero_stage": 1}),
    "stage 2, a checkpoint": (2, 2, {"zero_stage": 2}),
    "stage 3": (2, 3, {"zero_stage": 3}),
    "bf16, stage 0": (2, 2, {"zero_stage": 0, **BF16}),
    "lora, stage 3": (2, 2, {"zero_stage": 3, **LORA}),
    "lora, the last": (2, 5, {"zero_stage": 3, **LORA}),
}
KILLED = {"export": 2, "result": 3}  # where -> ZeRO stage
# Goes on with one rank: changes to the config.
RESIZED: dict[str, dict[str, Any]] = {
    "stage 2": {"zero_stage": 2},
    "bf16, stage 3": {"zero_stage": 3, **BF16},
    "lora, stage 3": {"zero_stage": 3, **LORA},
}


def spec(output: Path, best: int, changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"method": "rm", "config": {**CONFIG, **changes}, "output": str(output), "scores": SCORES[best], **more}


def specs_of(runs: dict[str, tuple[int, int, dict[str, Any]]], ranks: int, folder: Path) -> dict[str, dict[str, Any]]:
    return {name: spec(folder / name, best, changes) for name, (needs, best, changes) in runs.items() if needs == ranks}


@pytest.fixture(scope="module")
def runs(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Every run of `RUNS`, and its gathers and errors."""
    folder = tmp_path_factory.mktemp("best")
    specs = specs_of(RUNS, 2, folder)
    return folder, dict(zip(specs, launch(2, *specs.values()), strict=True))


@pytest.fixture(scope="module")
def more_runs(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Every run of `MORE_RUNS`, `KILLED` and `RESIZED`, and its gathers and errors."""
    folder, outcomes = tmp_path_factory.mktemp("best"), {}
    for ranks in (2, 1):
        specs = specs_of(MORE_RUNS, ranks, folder)
        again = {}  # launched later: two runs of one folder would overwrite each other's outcome
        if ranks == 2:
            for where, stage in KILLED.items():
                killed = folder / f"killed {where}"
                specs[f"{where}, killed"] = spec(killed, 2, {"zero_stage": stage}, die=where)
                again[f"{where}, again"] = spec(killed, 2, {"zero_stage": stage})
            specs |= {
                f"resized {name}, begun": spec(folder / f"resized {name}", 3, changes, stop_after=4)
                for name, changes in RESIZED.items()
            }
        else:
            four = {"gradient_accumulation_steps": 4}
            specs |= {
                f"resized {name}": spec(folder / f"resized {name}", 3, {**changes, **four})
                for name, changes in RESIZED.items()
            }
        for batch in (specs, again):
            outcomes |= dict(zip(batch, launch(ranks, *batch.values()), strict=True))
    return folder, outcomes


def contents(folder: Path, *left_out: str) -> dict[str, Any]:
    """Bytes by file; of adapter_config.json its values, as peft writes its modules in any order."""
    found: dict[str, Any] = {}
    for file in folder.rglob("*"):
        if file.is_file() and file.name not in left_out:
            found[str(file.relative_to(folder))] = file.read_bytes()
    if "adapter_config.json" in found:
        config = json.loads(found["adapter_config.json"])
        found["adapter_config.json"] = {**config, "target_modules": sorted(config["target_modules"])}
    return found


def check(run: Path, best: int, *left_out: str) -> None:
    """Weights, config, tokenizer and card, and the adapter beside them."""
    adapter = (run / "now-adapter").is_dir()
    for name in ("best", "best-adapter") if adapter else ("best",):
        then = contents(run / name.replace("best", "now") / str(best), *left_out)
        assert contents(run / name, *left_out) == then
        assert any(file.endswith(".safetensors") for file in then)
    weights = "model.safetensors"
    others = {(run / "now" / str(step) / weights).read_bytes() for step in range(1, 6) if step != best}
    assert (run / "best" / weights).read_bytes() not in others
    assert (run / "model" / weights).read_bytes() == (run / "now" / "5" / weights).read_bytes()
    result = json.loads((run / "result.json").read_text())
    said = json.loads((run / "best.json").read_text())
    assert (said["step"], said["weights"]) == (best, result["best_weights"])
    assert not best_directory(run / "checkpoints").exists()
    assert [path.name for path in committed(run / "checkpoints")] == ["step-00000004"]


def check_run(folder: Path, outcome: dict[str, Any], name: str, best: int) -> None:
    assert outcome["error"] is None
    # Weights are gathered at the end alone, once where the last step is the best.
    assert outcome["gathers"] == ([5] if best == 5 else [5, 5])
    check(folder / name, best)


@pytest.mark.parametrize("name", RUNS)
def test_best_is_what_an_export_at_its_step_would_have_written(runs: tuple[Path, dict[str, Any]], name: str) -> None:
    folder, outcomes = runs
    check_run(folder, outcomes[name], name, RUNS[name][1])


@pytest.mark.long
@pytest.mark.parametrize("name", MORE_RUNS)
def test_best_is_what_an_export_at_its_step_would_have_written_in_every_mode(
    more_runs: tuple[Path, dict[str, Any]], name: str
) -> None:
    folder, outcomes = more_runs
    check_run(folder, outcomes[name], name, MORE_RUNS[name][1])


@pytest.mark.long
@pytest.mark.parametrize("where", KILLED)
def test_a_run_that_ends_in_its_export_exports_the_same_model_the_next_time(
    more_runs: tuple[Path, dict[str, Any]], where: str
) -> None:
    folder, outcomes = more_runs
    assert "killed" in outcomes[f"{where}, killed"]["error"]["text"]
    assert outcomes[f"{where}, again"]["error"] is None
    assert outcomes[f"{where}, again"]["gathers"] == [5, 5]
    assert json.loads((folder / f"killed {where}" / "result.json").read_text())["resumed_step"] == 4
    check(folder / f"killed {where}", 2)


@pytest.mark.long
@pytest.mark.parametrize("name", RESIZED)
def test_one_rank_exports_what_two_ranks_kept(more_runs: tuple[Path, dict[str, Any]], name: str) -> None:
    folder, outcomes = more_runs
    assert outcomes[f"resized {name}, begun"]["gathers"] == []
    assert outcomes[f"resized {name}"]["error"] is None
    result = json.loads((folder / f"resized {name}" / "result.json").read_text())
    assert (result["resumed_step"], result["num_workers"]) == (4, 1)
    check(folder / f"resized {name}", 3, "README.md")  # the card counts workers


@pytest.mark.parametrize("stage", [1, 3])
def test_weights_alone_are_kept_where_they_are_in_files_of_their_own(launch: Any, tmp_path: Path, stage: int) -> None:
    """Below ZeRO-3 by two links to one file each; ZeRO-3's shards hold weights and moments together."""
    (outcome,) = launch(2, spec(tmp_path, 2, {"zero_stage": stage}, stop_after=3))
    assert outcome["error"] is None
    kept = checkpoint_path(best_directory(tmp_path / "checkpoints"), 2)
    there = checkpoint_path(tmp_path / "checkpoints", 2)
    files = {file.name for file in (kept / "state").iterdir()}
    if stage < 3:
        assert files == {"mp_rank_00_model_states.pt"}
    else:
        kinds = ("model", "optim")
        assert files == {f"zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt" for rank in (0, 1) for kind in kinds}
    for name in files:
        assert (kept / "state" / name).samefile(there / "state" / name)
