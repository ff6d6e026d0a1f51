"""Which network torch.distributed talks over: the one that Ray's nodes reach each other on.

gloo takes the address that the host's own name resolves to. That is loopback on many systems (Debian writes
`127.0.1.1 NAME` into /etc/hosts), so ranks on two hosts look for each other on themselves; and where it is not, a run
on one machine listens on the network. NCCL meets over the first interface that is neither loopback nor Docker's, which
may be a container network or a storage network; its InfiniBand traffic does not depend on this. `GLOO_SOCKET_IFNAME`
and `NCCL_SOCKET_IFNAME`, where set, are left as they are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@dataclass
class NodeNetwork(TorchConfig):
    """Ray Train's torch backend with gloo and NCCL on the node's own network interface."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _NodeNetworkBackend


class _NodeNetworkBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_use_node_interface)  # on every rank: interfaces need not be called alike
        super().on_start(worker_group, backend_config)


def _use_node_interface() -> None:
    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        for variable in _VARIABLES:
            os.environ.setdefault(variable, name)


def interface_of(address: str) -> str | None:
    """Name of this host's interface that has the address; None if none has (a container behind a translated one)."""
    for name, addresses in psutil.net_if_addrs().items():
        # An IPv6 address of one link is shown with the link's name behind it.
        if any(one.address.partition("%")[0] == address for one in addresses):
            return str(name)
    return None
