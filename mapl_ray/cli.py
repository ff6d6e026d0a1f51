"""The `mapl` command line. Exit codes: 0 done, 1 failed, 2 user's mistake, 130 interrupted."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mapl_ray.config import Override, RunConfig, load_config
from mapl_ray.errors import RunError, UserError, no_space
from mapl_ray.progress import WAITING_SECONDS, progress, tracked
from mapl_ray.versions import require_cluster_stack

if TYPE_CHECKING:
    from mapl_ray.synthesis import Exported, ExportFolder

# A private cluster takes 10 to 15 s to start; one process writes a part of 1,000 AlpacaEval groups in 0.4 s.
PARTS_FOR_A_CLUSTER = 50
DEMO_CONFIG = Path(__file__).parent / "demo.yaml"
STAGES = {
    "synthesize": "preference pairs -> relation groups (Ray Data)",
    "score": "fill ref_logps and rewards (vLLM actors)",
    "tune": "search loss weights, learning rate and other training values (Ray Tune)",
    "evaluate": "accuracy per level, k and family; MAPL against the baseline; public sets; comparison of any models",
    "report": "write one HTML file about a finished run",
    "pipeline": "run every stage in order; finished stages are skipped",
    "demo": "run the pipeline on the bundled sample with a tiny model: CPU, offline",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code. A user's mistake never shows a traceback."""
    args = _arguments(argv)
    try:
        return int(args.run(args))
    except UserError as error:
        return _say(f"error: {error}", 2)
    except RunError as error:
        return _say(f"failed: {error}", 1)
    except KeyboardInterrupt:
        return _say("interrupted; finished work is kept: run the same command again to go on", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if (message := no_space(error)) is None:
            raise
        return _say(f"failed: {message}", 1)


def _say(text: str, code: int) -> int:
    print(f"mapl: {text}", file=sys.stderr)
    return code


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the arguments. argparse ends a list of positionals at the first option; later overrides are added here."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    stray = [word for word in rest if word.startswith("-") or "=" not in word]
    if stray:
        parser.error(f"unrecognized arguments: {' '.join(stray)}")
    args.overrides += rest
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mapl", description="Multi-level Aware Preference Learning on Ray.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in STAGES.items():
        _run_command(commands.add_parser(name, help=text, description=text), _stage)
    evaluate = commands.choices["evaluate"]
    evaluate.add_argument("--models", nargs="+", help="directories or hub names (owner/name@revision); else the run's")
    evaluate.add_argument("--set", action="append", metavar="NAME=PATH", help="a public set (docs/evaluation.md)")
    train = commands.add_parser("train", help="train a reward model or a DPO policy (DeepSpeed)")
    train.add_argument("method", choices=["rm", "dpo"])  # before the overrides, which consume all remaining words
    _run_command(train, _train)
    train.add_argument("--baseline", action="store_true", help="the plain baseline: lambda_intra = lambda_inter = 0")
    export = _run_command(commands.add_parser("export", help="write the groups as plain rows"), _export)
    export.add_argument("--format", choices=["intra", "inter", "trl", "openrlhf"], required=True)
    export.add_argument(
        "--prompts",
        choices=["explicit", "implicit"],
        default="explicit",
        help="trl and openrlhf: prompts in a separate column, or as the first turns of chosen and rejected",
    )
    export.add_argument("--output", required=True, help="a .jsonl or .parquet file, or a folder (PATH/)")
    export.add_argument(
        "--parts", action="store_true", help="--output is a folder: one Parquet file per part of the groups"
    )
    export.add_argument("--split", choices=["train", "eval"], default="train")
    _run_command(
        commands.add_parser("doctor", help="check what this machine or cluster can run, and what is missing"), _doctor
    )
    _plan_command(commands.add_parser("plan", help="estimate time, GPU hours, memory and storage of a run"))
    _submit_command(commands.add_parser("submit", help="run a command as a Ray job and follow its log"))
    return parser


def _run_command(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    parser.add_argument("--config", help="a YAML file; recipes are in jobs/configs/")
    parser.add_argument("--model", help="short for model.name_or_path=...")
    parser.add_argument("--data", help="short for data.path=...")
    parser.add_argument(
        "--print-config", action="store_true", help="print the complete config as it will be used, and exit"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="override single values")
    parser.set_defaults(run=run)
    return parser


def _config(args: argparse.Namespace) -> RunConfig:
    overrides: list[Override] = list(args.overrides)
    overrides += [("model.name_or_path", args.model)] if args.model is not None else []
    overrides += [("data.path", args.data)] if args.data is not None else []
    overrides += _evaluated(args) if args.command == "evaluate" else []
    path = args.config
    if args.command == "demo" and path is None:
        path = DEMO_CONFIG
    config = load_config(path, overrides)
    if args.print_config:
        import yaml

        print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), end="")
        raise SystemExit(0)
    return config


def _evaluated(args: argparse.Namespace) -> list[Override]:
    """`--models` and `--set` as overrides. argparse counts overrides after `--models` as models."""
    words = args.models or []
    given = [word for word in words if "=" in word and "/" not in word.partition("=")[0]]
    models = [word for word in words if word not in given]
    overrides: list[Override] = [*given, *([("evaluation.models", models)] if models else [])]
    for text in args.set or []:
        name, equals, path = text.partition("=")
        if not equals or not path or not name or "." in name:
            raise UserError(f"--set {text!r}: expected NAME=PATH, as in rewardbench=data/rewardbench.parquet.")
        overrides.append((f"evaluation.sets.{name}", path))
    return overrides


def _stage(args: argparse.Namespace) -> int:
    config = _config(args)
    require_cluster_stack(f"mapl {args.command}")
    with progress(f"mapl {args.command}", silence=WAITING_SECONDS):
        # Imported after the config is read: config errors and --print-config need not wait for Ray and torch.
        from mapl_ray.distributed import pipeline
        from mapl_ray.distributed.hub_commits import with_commits
        from mapl_ray.distributed.resources import ALL_STAGES
        from mapl_ray.models import with_smollm2

        if args.command == "report":  # only reads files
            pipeline.report(config)
            return 0
        config = with_commits(with_smollm2(config))
        stages = ALL_STAGES if args.command in ("pipeline", "demo") else (args.command,)
        with pipeline.session(config, stages):
            {
                "synthesize": pipeline.make_groups,
                "score": pipeline.score,
                "tune": pipeline.tune,
                "evaluate": pipeline.evaluate,
                "pipeline": pipeline.run,
                "demo": pipeline.run,
            }[args.command](config)
    return 0


def _train(args: argparse.Namespace) -> int:
    config = _config(args)
    require_cluster_stack("mapl train")
    with progress(f"mapl train {args.method}", silence=WAITING_SECONDS):
        from mapl_ray.distributed import pipeline
        from mapl_ray.distributed.hub_commits import with_commits
        from mapl_ray.models import with_smollm2

        config = with_commits(with_smollm2(config))
        with pipeline.session(config, (f"train {args.method}",), baseline=args.baseline):
            pipeline.train_one(config, args.method, baseline=args.baseline)
    return 0


def _export(args: argparse.Namespace) -> int:
    config = _config(args)
    from mapl_ray.data.records import RelationGroup
    from mapl_ray.data.shards import iter_rows, read_manifest
    from mapl_ray.synthesis import ExportFolder, left_out_lines, write_export

    directory, output = config.data_dir / "groups" / args.split, Path(args.output)
    if args.parts or args.output.endswith(os.sep) or output.is_dir():
        exported = _export_parts(ExportFolder(directory, output.resolve(), args.format, args.prompts), config)
    else:
        total = read_manifest(directory, verify=False).rows
        groups = (RelationGroup.from_row(row) for row in tracked(iter_rows(directory), "export", "groups", total))
        exported = write_export(groups, args.format, output, args.prompts)
    print(f"{exported.rows} {args.format} rows -> {args.output}")
    if lines := left_out_lines(exported.left_out):
        print(f"What {args.format} rows leave out of the groups (`pair_id` identifies the group):")
        print(*(f"  {line}" for line in lines), sep="\n")
    return 0


def _export_parts(export: ExportFolder, config: RunConfig) -> Exported:
    """Write the missing parts: one after another in this process, or in parallel on a cluster."""
    from mapl_ray.lease import lease

    manifest = export.manifest()
    if config.cluster.address is not None:
        require_cluster_stack("mapl export with cluster.address")
    with lease(export.lease):
        missing = export.missing(manifest)
        if there := len(manifest.parts) - len(missing):
            print(f"  {there} of {len(manifest.parts)} parts are already there", flush=True)
        fewest = PARTS_FOR_A_CLUSTER if config.cluster.address is None else 2
        if len(missing) >= fewest and find_spec("ray") is not None:
            from mapl_ray.distributed.export_tasks import write_parts

            write_parts(export, missing, config.cluster)
        else:
            for part in tracked(missing, "export", "parts", len(missing)):
                export.write_part(part)
        return export.exported(manifest)


def _doctor(args: argparse.Namespace) -> int:
    from mapl_ray.doctor import diagnose, findings_text
    from mapl_ray.models import with_smollm2

    given = args.config or args.overrides or args.model or args.data
    findings = diagnose(with_smollm2(_config(args)) if given else None)
    print(findings_text(findings))
    return 1 if any(finding.level == "fail" for finding in findings) else 0


def _plan_command(parser: argparse.ArgumentParser) -> None:
    _run_command(parser, _plan)
    parser.add_argument("--pairs", help="numbers of pairs, such as 1e6,1e8; 10 thousand to 1 billion")
    parser.add_argument("--gpus", help="numbers of GPUs, such as 8,64; 1 to 1024")
    parser.add_argument("--gpu", default="H100", help="GPU model, as named in training/throughput.py")
    parser.add_argument("--gpu-memory-gib", type=float, help="memory of one GPU in GiB (default: 80)")
    parser.add_argument("--rates", help="a JSON file of rates that you measured")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _plan(args: argparse.Namespace) -> int:
    config = _config(args)
    from mapl_ray.models import with_smollm2
    from mapl_ray.planning import GPUS, PAIRS, load_rates, make_plan, plan_text, to_json

    rates = load_rates(args.rates, args.gpu, args.gpu_memory_gib)
    pairs, gpus = _numbers("--pairs", args.pairs, PAIRS), _numbers("--gpus", args.gpus, GPUS)
    plan = make_plan(with_smollm2(config), rates, pairs, gpus)
    print(to_json(plan) if args.json else plan_text(plan))
    return 0


def _numbers(option: str, text: str | None, default: Sequence[int]) -> list[int]:
    try:
        return [int(float(word)) for word in text.split(",")] if text else list(default)
    except (ValueError, OverflowError):
        raise UserError(f"{option} {text}: expected whole numbers separated by commas, such as 8,64.") from None


def _submit_command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", choices=["synthesize", "score", "train", "tune", "evaluate", "report", "pipeline"])
    parser.add_argument("--method", choices=["rm", "dpo"], help="method of `train`")
    parser.add_argument("--address", required=True, help="the dashboard's address, such as http://127.0.0.1:8265")
    parser.add_argument("--config", required=True)
    parser.add_argument("--no-wait", action="store_true", help="print the job's id and return")
    parser.add_argument("--allow-unprotected", action="store_true", help="use a remote cluster that requires no token")
    parser.add_argument("--allow-plain-http", action="store_true", help="send the token to another machine unencrypted")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.set_defaults(run=_submit)


def _submit(args: argparse.Namespace) -> int:
    require_cluster_stack("mapl submit")
    from mapl_ray.distributed.jobs.submit import submit

    if (args.job == "train") != bool(args.method):
        raise UserError("`mapl submit train` takes --method rm or --method dpo; the other jobs take none.")
    return submit(
        config_path=Path(args.config),
        command=["train", args.method] if args.job == "train" else [args.job],
        address=args.address,
        overrides=list(args.overrides),
        wait=not args.no_wait,
        allow_unprotected=args.allow_unprotected,
        allow_plain_http=args.allow_plain_http,
    )


if __name__ == "__main__":
    sys.exit(main())
