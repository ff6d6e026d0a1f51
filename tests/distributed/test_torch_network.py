"""Which interface gloo is given. That it is right over hosts: tests/multihost/test_stages.py."""

import os
import socket

import psutil
import pytest

from mapl_ray.distributed.torch_network import NodeNetwork, interface_of


def test_every_address_of_this_host_has_its_interface() -> None:
    for name, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                assert interface_of(one.address.partition("%")[0]) == name


def test_an_address_of_another_host_has_none() -> None:
    assert interface_of("203.0.113.7") is None  # kept free for documentation


@pytest.mark.parametrize(("given", "expected"), [(None, interface_of("127.0.0.1")), ("mine0", "mine0")])
def test_ranks_take_the_nodes_interface_and_the_users_choice_before_it(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mapl_ray.distributed import torch_network

    monkeypatch.setattr(torch_network.ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    if given:
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", given)
    called = []

    class Workers:
        def execute(self, function, *args, **kwargs):  # type: ignore[no-untyped-def]
            called.append(function.__name__)
            if function.__name__ == "_use_node_interface":
                function()

        def execute_single(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            raise StopIteration  # the process group is Ray's affair

    backend = NodeNetwork(backend="gloo")
    with pytest.raises(StopIteration):
        backend.backend_cls().on_start(Workers(), backend)
    assert called == ["_use_node_interface"]  # before anything connects
    assert os.environ["GLOO_SOCKET_IFNAME"] == expected
