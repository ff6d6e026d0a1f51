"""Which interface gloo is given. That it is right over hosts: tests/multihost/test_stages.py."""

import os
import socket
from pathlib import Path

import psutil
import pytest
import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer

from mapl_ray.distributed.torch_network import NodeNetwork, _use_node_interface, interface_of


def test_every_address_of_this_host_has_its_interface() -> None:
    for name, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                assert interface_of(one.address.partition("%")[0]) == name


def test_an_address_of_another_host_has_none() -> None:
    assert interface_of("203.0.113.7") is None  # kept free for documentation


@ray.remote(num_cpus=0)
def interface_taken() -> str:
    _use_node_interface()
    assert os.environ["NCCL_SOCKET_IFNAME"] == os.environ["GLOO_SOCKET_IFNAME"]
    return os.environ["GLOO_SOCKET_IFNAME"]


@pytest.mark.ray
def test_workers_take_the_nodes_interface_and_the_users_choice_before_it(local_ray: None) -> None:
    assert ray.get(interface_taken.remote(), timeout=60) == interface_of(ray.util.get_node_ip_address())
    chosen = interface_taken.options(
        runtime_env={"env_vars": {"GLOO_SOCKET_IFNAME": "mine0", "NCCL_SOCKET_IFNAME": "mine0"}}
    )
    assert ray.get(chosen.remote(), timeout=60) == "mine0"


def says_its_interface(folder: dict[str, str]) -> None:
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    listening = [one.laddr.ip for one in psutil.Process().net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    said = f"{os.environ['GLOO_SOCKET_IFNAME']} {total.item():.0f} {sorted({*listening})}"
    (Path(folder["folder"]) / str(torch.distributed.get_rank())).write_text(said)
    torch.distributed.barrier()  # before the first of them closes its connections


@pytest.mark.ray
@pytest.mark.long
def test_ranks_have_it_before_they_connect(local_ray: None, tmp_path: Path) -> None:
    """Under Ray Train: the group of processes exists when the loop begins, and takes what it finds at its start.

    Nothing of it listens beyond loopback, where whoever joins can send pickles.
    """
    TorchTrainer(
        says_its_interface,
        train_loop_config={"folder": str(tmp_path)},
        torch_config=NodeNetwork(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=2),
        run_config=ray.train.RunConfig(name="network", storage_path=str(tmp_path / "ray")),
    ).fit()
    expected = "lo 2 ['127.0.0.1', '::ffff:127.0.0.1']"
    assert [(tmp_path / rank).read_text() for rank in ("0", "1")] == [expected, expected]
