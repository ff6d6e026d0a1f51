"""Run the stages in order. Each is idempotent: finished work is skipped with a message."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mapl_ray.aside import set_aside
from mapl_ray.config import Method, RunConfig
from mapl_ray.data.shards import write_json
from mapl_ray.distributed.evaluate import model_name, run_evaluation
from mapl_ray.distributed.node_watch import nodes_watched
from mapl_ray.distributed.preflight import METHODS, check_inputs
from mapl_ray.distributed.prepare import SPLITS, resolve_model
from mapl_ray.distributed.resources import check_stage, with_pair_scoring
from mapl_ray.distributed.run_folder import check_run_folder, leases, training_of
from mapl_ray.distributed.runtime import available_resources, ray_session
from mapl_ray.distributed.score import run_scoring
from mapl_ray.distributed.search.tune_stage import run_tune
from mapl_ray.distributed.synthesis_stage import run_synthesis
from mapl_ray.distributed.train_in_turn import Training, run_in_turn
from mapl_ray.evaluation import Results, results_table
from mapl_ray.evaluation.own_text import answers_text
from mapl_ray.progress import WAITING_SECONDS, progress
from mapl_ray.report import build_data_card, build_data_report, build_report
from mapl_ray.training.result import TrainResult


@contextmanager
def session(config: RunConfig, stages: tuple[str, ...], *, baseline: bool = False) -> Iterator[None]:
    """A Ray session for the stages, after checking their inputs and resources. `baseline` applies to `train`."""
    check_inputs(config, stages)
    with leases(config, stages, baseline=baseline):
        check_run_folder(config, stages, baseline=baseline)
        with ray_session(config.cluster, searches="tune" in stages):
            resources = available_resources()
            for stage in with_pair_scoring(stages, config):
                check_stage(stage, config, resources)
            yield


def run(config: RunConfig) -> None:
    """Run every stage and print its time; ends with the results, the output paths and next commands."""
    started = time.monotonic()
    make_groups(config)
    score(config)
    train_all(config)
    tune(config)
    answers = _evaluate(config)
    report(config)
    print(answers, end="", flush=True)
    _closing_lines(config, time.monotonic() - started)


def make_groups(config: RunConfig) -> None:
    """Preference pairs -> relation groups, in `run_dir/groups`."""
    with _stage("synthesize"), nodes_watched("synthesize", config):
        manifests = run_synthesis(config)
        page = config.data_dir / "data_report.html"
        made = max((config.data_dir / "groups" / split / "manifest.json").stat().st_mtime for split in manifests)
        if not page.is_file() or page.stat().st_mtime < made:
            build_data_card(config.data_dir, config.synthesis, config.seed)
            build_data_report(config.data_dir)
        print(f"  data report: {page}", flush=True)


def score(config: RunConfig) -> None:
    """Fill `ref_logps` and `rewards`, in `run_dir/scored`."""
    with _stage("score"), nodes_watched("score", config):
        run_scoring(config)


def train_one(config: RunConfig, method: Method, *, baseline: bool) -> None:
    """Train one model into `run_dir/rm`, `rm-baseline`, `dpo` or `dpo-baseline`."""
    _train(config, [_training(config, method, baseline)])


def train_all(config: RunConfig) -> None:
    """Train reward model and policy, each with its plain baseline if `evaluation.baseline` is set."""
    kinds = (False, True) if config.evaluation.baseline else (False,)
    _train(config, [_training(config, method, baseline) for method in METHODS for baseline in kinds])


def _training(config: RunConfig, method: Method, baseline: bool) -> Training:
    name = model_name(method, baseline)
    settings = training_of(config, method, baseline)
    return Training(name, method, settings, resolve_model(config), config.run_dir / name)


def _train(config: RunConfig, trainings: Sequence[Training]) -> None:
    with ExitStack() as stage:

        def begin(training: Training) -> None:
            stage.enter_context(_stage(f"train {training.name}"))

        def end(training: Training, result: TrainResult) -> None:
            accuracies = {key.rsplit("/", 1)[-1]: value for key, value in result.metrics.items() if "accuracies" in key}
            shown = ", ".join(f"{level} {value:.3f}" for level, value in accuracies.items())
            print(f"  {result.steps} steps; accuracy: {shown}; model: {result.model_dir}", flush=True)
            stage.close()

        run_in_turn(config, trainings, begin, end)


def tune(config: RunConfig) -> None:
    """Search training values; writes to `run_dir/tune`."""
    with _stage("tune"):
        print(f"  best config: {run_tune(config)}", flush=True)


def evaluate(config: RunConfig) -> None:
    """Evaluate models on the held-out groups and public sets; writes `run_dir/evaluation.json`, prints tables and
    sample answers."""
    print(_evaluate(config), end="", flush=True)


def _evaluate(config: RunConfig) -> str:
    """Evaluate; returns sample answers before and after DPO as text to print, empty if there are none."""
    with _stage("evaluate"), nodes_watched("evaluate", config):
        results = run_evaluation(config)
        _keep_other(config.run_dir / "evaluation.json", results)
        write_json(config.run_dir / "evaluation.json", results)
        print(results_table(results), flush=True)
    own = results["own_prompts"]
    text = "" if own is None else answers_text(own)
    return f"\n{text}\n" if text else ""


def report(config: RunConfig) -> None:
    """Write one self-contained HTML file about the run."""
    with _stage("report"):
        print(f"  {build_report(config.run_dir, config.data_dir)}", flush=True)
        if all((config.data_dir / "groups" / split / "manifest.json").is_file() for split in SPLITS):
            print(f"  {build_data_report(config.data_dir)}", flush=True)


def _keep_other(path: Path, results: Results) -> None:
    """Set an `evaluation.json` of other models, data or settings aside. One of the same is overwritten."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["provenance"]["settings"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError):
        before = None
    now = results["provenance"]
    if now is None or before != now["settings"]:
        set_aside(path, "of other models, data or settings")


@contextmanager
def _stage(name: str) -> Iterator[None]:
    print(f"== {name}", flush=True)
    started = time.monotonic()
    with progress(name, silence=WAITING_SECONDS):
        yield
    print(f"   {name}: {time.monotonic() - started:.0f} s", flush=True)


def _closing_lines(config: RunConfig, seconds: float) -> None:
    run = config.run_dir
    print(f"\nDone in {seconds:.0f} s. Results:")
    for what, path in {
        "groups (Parquet)": config.data_dir / "groups",
        "scored groups": config.data_dir / "scored",
        "reward model": run / "rm" / "model",
        "DPO policy": run / "dpo" / "model",
        "numbers": run / "evaluation.json",
        "report": run / "report.html",
    }.items():
        print(f"  {what:17} {path}")
    print(f"\nCurves:     tensorboard --logdir {run}")
    print(f"Tuned run:  mapl train {config.tune.method} --config {run / 'tune' / 'best.yaml'}")
    print("Your data:  mapl demo --data pairs.jsonl name=mine")
