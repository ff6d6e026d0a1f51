"""Hosts by the way they are written: loopback, and the metadata services of clouds."""

import pytest

from mapl_ray.addresses import is_loopback, is_metadata_service


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True), ("::ffff:127.0.0.1", True),
     ("localhost", True), ("LOCALHOST.", True), ("0.0.0.0", False), ("::", False), ("192.168.1.5", False),
     ("::ffff:10.0.0.1", False), ("fe80::1%eth0", False), ("64:ff9b::127.0.0.1", False), ("localhost.example", False),
     ("", False)],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


IPV4_FORMS = [
    "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.16689662", "169.254.169.254.",
    "\uff11\uff16\uff19.254.169.254",  # full-width digits
    "169\u3002254\u3002169\u3002254",  # ideographic full stops
]  # fmt: skip
IPV6_FORMS = [
    "::ffff:169.254.169.254",  # mapped
    "::169.254.169.254",  # compatible
    "::ffff:0:169.254.169.254",  # translated
    "64:ff9b::169.254.169.254",  # NAT64
    "64:ff9b:1::a9fe:a9fe",  # NAT64 of a site
    "2002:a9fe:a9fe::1",  # 6to4
    "2001:0:a9fe:a9fe::1",  # Teredo
    "fe80::1", "fe80::a9fe:a9fe%25eth0",
    "fd00:ec2::254", "fd00:ec2::23",  # EC2, EKS
    "fd20:ce::254",  # Google
    "fd00:c1::a9fe:a9fe",  # Oracle
]  # fmt: skip
OTHERS = ["169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192", "METADATA",
          "metadata.google.internal.", "instance-data.ec2.internal"]  # fmt: skip


@pytest.mark.parametrize("host", [*IPV4_FORMS, *IPV6_FORMS, *(f"[{host}]" for host in IPV6_FORMS), *OTHERS])
def test_metadata_services(host: str) -> None:
    assert is_metadata_service(host)


@pytest.mark.parametrize(
    "host",
    ["", "example.com", "10.0.0.1", "127.0.0.1", "::1", "64:ff9b::10.0.0.1", "2002:a00:1::1", "2001:db8::1",
     "fd00:ec2::1", "minio.metadata.example.com"],
)  # fmt: skip
def test_other_hosts(host: str) -> None:
    assert not is_metadata_service(host)
