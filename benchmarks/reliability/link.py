"""A lost network link between hosts, which are network namespaces. The lost host keeps running."""

from __future__ import annotations

import sys
import time

from benchmarks.reliability.commands import Command, wait_until
from benchmarks.reliability.fault import Fault, Outcome, Scene
from benchmarks.reliability.runs import compare_data, parts, synthesis_words, undisturbed_synthesis
from tests.multihost.cluster import ray_cluster
from tests.multihost.network import Network, hosts_available

HOSTS = 3
END_SECONDS = 240.0


def cut(scene: Scene) -> Outcome:
    """The link of a worker host is lost during the work; the command runs on the head."""
    there, outcome, folder = undisturbed_synthesis(scene), Outcome(), scene.folder
    total = parts(there, "groups")
    with Network(HOSTS) as hosts, ray_cluster(hosts, cpus=1) as ray:
        words = synthesis_words(scene, folder, f"cluster.address={ray.address}")
        log = folder / "log"
        process = hosts[0].start([sys.executable, "-m", "mapl_ray.cli", *words], log, ray.token)
        command = Command(process, log)
        wait_until(lambda: parts(folder / "run", "groups") >= total // 4, command)
        outcome.check("the host that lost its cable had work in hand", bool(hosts[2].processes("SynthesizeShard")))
        hosts[2].cut()
        began = time.monotonic()
        code = command.finish(END_SECONDS)
        outcome.seconds.append(time.monotonic() - began)
        outcome.check(f"the same command ends with exit code 0 within {END_SECONDS:.0f} s of the cut", code == 0)
        compare_data(outcome, there, folder / "run", "pairs", "groups")
    outcome.lost = f"the parts in hand on that host, at most 2 of {total}"
    return outcome


FAULTS = (
    Fault(
        name="cut-link",
        of_issue="cut link",
        title="The link of a host is cut in synthesis",
        happens="Ray takes the host for lost once it has not answered for a while; its parts are made elsewhere",
        user="Nothing has to be done: Ray's log names the node that did not answer.",
        recovery="from the cut to the end of the command, which has to wait for the parts in hand there",
        rounds=1,
        limit_seconds=600,
        measure=cut,
        missing=hosts_available,
    ),
)
