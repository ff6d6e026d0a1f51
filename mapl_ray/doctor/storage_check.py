"""`mapl doctor`: whether a run's storage supports what checkpoints, data sets and leases need, also from two nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mapl_ray.awaited import file_system
from mapl_ray.config import RunConfig
from mapl_ray.doctor.finding import Finding
from mapl_ray.errors import RunError, UserError
from mapl_ray.storage import LOCKS, SEEN, Side, StorageTrial, try_storage
from mapl_ray.unfinished import scratch_folder

_SHARED = "set output_dir to storage that all nodes mount at the same path (NFS 4, CephFS, Lustre, GPFS)"
_CURE = "set output_dir to a POSIX file system, not to a mounted object store (s3fs, gcsfuse): NFS 4, CephFS, Lustre"
_LOCKS_CURE = "set MAPL_CACHE to a local disk: without shared locks two nodes may copy the same model at once"


def check_storage(config: RunConfig, *, reachable: bool = True) -> Iterator[Finding]:
    """Try `output_dir` or its nearest existing parent with small files, in a folder that is removed afterwards.

    `reachable`: whether the cluster that the config names answers.
    """
    folder = Path(config.output_dir).resolve()
    while not folder.is_dir():
        folder = folder.parent
    if not os.access(folder, os.W_OK):  # reported by a separate finding
        return
    try:
        with scratch_folder("mapl-doctor", folder) as scratch:
            yield from _findings(folder, _tried(config, scratch, reachable))
    except (UserError, RunError) as error:
        yield Finding("fail", "storage", f"{folder}: not tried: {error}", "fix cluster.address, or check the nodes")
    except OSError as error:
        yield Finding("fail", "storage", f"{folder}: {error}", _CURE)


def _tried(config: RunConfig, scratch: Path, reachable: bool) -> StorageTrial:
    if config.cluster.address is None or not reachable:
        return try_storage([Side(str(scratch))])
    from mapl_ray.distributed.storage_nodes import sides_on_nodes  # Ray takes a second

    with sides_on_nodes(config.cluster, scratch) as sides:
        return try_storage(sides)


def _findings(folder: Path, trial: StorageTrial) -> Iterator[Finding]:
    kind = file_system(folder)
    where = f"{folder} ({kind})" if kind else str(folder)
    seen_from = f", seen from {' and '.join(trial.hosts)}"
    for lacking in trial.lacking:
        if lacking.startswith(LOCKS):
            yield Finding("warn", "storage", f"{where}{seen_from}: does not support {lacking}", _LOCKS_CURE)
        else:
            cure = _SHARED if lacking.startswith(SEEN) and len(trial.hosts) > 1 else _CURE
            yield Finding("fail", "storage", f"{where}{seen_from}: does not support {lacking}", cure)
    if not trial.lacking:
        found = f"; a new file was found after {trial.seen_seconds:.1f} s" if len(trial.hosts) > 1 else ""
        yield Finding("ok", "storage", f"{where}{seen_from}: renames, fsync, exclusive creation and locks work{found}")
