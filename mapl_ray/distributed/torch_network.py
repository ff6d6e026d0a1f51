"""Make torch.distributed use the network interface that Ray's nodes reach each other on.

By default gloo uses the address that the host's name resolves to. On many systems that is loopback (Debian writes
`127.0.1.1 NAME` into /etc/hosts), so ranks on two hosts can't find each other; otherwise a run on one machine listens
on the network. NCCL uses the first interface that is neither loopback nor Docker's, which may be a container or storage
network; its InfiniBand traffic does not depend on this. `GLOO_SOCKET_IFNAME` and `NCCL_SOCKET_IFNAME` are kept if set.

On a private cluster, whose node is 127.0.0.1, nothing listens beyond loopback: ranks find each other through a file.
torch's TCP store would listen on every interface, and anyone who joins it can send pickles.
"""

from __future__ import annotations

import ipaddress
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import worker as ray_worker
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend

_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@dataclass
class NodeNetwork(TorchConfig):
    """Ray Train's torch backend with gloo and NCCL on the node's own network interface."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _NodeNetworkBackend


class _NodeNetworkBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_use_node_interface)  # on every rank, because interface names may differ
        if not ipaddress.ip_address(ray.util.get_node_ip_address()).is_loopback:
            super().on_start(worker_group, backend_config)
            return
        worker_group.execute(_set_torch_distributed_env_vars)
        size = len(worker_group)
        group = {
            "backend": backend_config.backend,
            "world_size": size,
            "init_method": f"file://{_store_file()}",
            "timeout_s": backend_config.timeout_s,
        }
        ray.get(
            [
                worker_group.execute_single_async(rank, _setup_torch_process_group, world_rank=rank, **group)
                for rank in range(size)
            ]
        )


def _store_file() -> Path:
    """A new file name in Ray's session folder, which only this user can access."""
    return Path(ray_worker._global_node.get_session_dir_path()) / f"torch-store-{uuid.uuid4().hex}"


def _use_node_interface() -> None:
    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        for variable in _VARIABLES:
            os.environ.setdefault(variable, name)


def interface_of(address: str) -> str | None:
    """Name of this host's interface with the address; None if there is none (a container behind NAT)."""
    for name, addresses in psutil.net_if_addrs().items():
        # psutil appends the interface name to a link-local IPv6 address, after a `%`.
        if any(one.address.partition("%")[0] == address for one in addresses):
            return str(name)
    return None
