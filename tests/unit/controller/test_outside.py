"""Where calls to addresses that somebody gave may go, whatever name they hide behind."""

import socket

import pytest

from fedjob_operator.adapters.outside import GuardedResolver, check_outside
from fedjob_operator.ports import CallError

API_SERVER = frozenset({"10.96.0.1", "192.168.7.7:6443"})


@pytest.mark.parametrize(
    "url",
    [
        "http://10.96.0.1:443",
        "http://0x0a600001/",
        "https://192.168.7.7:6443",
        "http://kubernetes.default.svc/api",
        "http://169.254.169.254/latest",
        "http://[::ffff:169.254.169.254]",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://0.0.0.0",
    ],
)
def test_where_no_client_lives_is_not_called(url):
    with pytest.raises(CallError, match="is not called"):
        check_outside(url, refused=API_SERVER, allows_loopback=False)


@pytest.mark.parametrize("url", ["http://192.168.7.7:8001", "https://hospital.example/fl", "http://10.1.2.3:8000"])
def test_other_addresses_are_called(url):
    check_outside(url, refused=API_SERVER, allows_loopback=False)
    check_outside("http://127.0.0.1:8001", refused=API_SERVER, allows_loopback=True)


@pytest.mark.parametrize("address", ["169.254.169.254", "10.96.0.1", "127.0.0.1"])
async def test_a_name_that_leads_there_is_not_resolved(address, monkeypatch):
    resolver = GuardedResolver(refused=API_SERVER, allows_loopback=False)

    async def resolved(host, port=0, family=socket.AF_INET):
        found = {"hostname": host, "port": port, "family": family, "proto": 0, "flags": 0}
        return [{**found, "host": "192.0.2.1"}, {**found, "host": address}]

    monkeypatch.setattr(resolver._inner, "resolve", resolved)
    with pytest.raises(OSError, match=r"rebound.example"):
        await resolver.resolve("rebound.example", 80)
    await resolver.close()
