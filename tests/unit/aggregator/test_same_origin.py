"""Who may start something: this server's own pages, and programs that are no browsers."""

import pytest
from starlette.requests import Request

from fedjob_aggregator.same_origin import check_same_origin
from fedjob_protocol.errors import Refusal


def asked(host="127.0.0.1:5000", server="127.0.0.1", **headers):
    """A request that came to an address of this machine."""
    named = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": "/training",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
            "server": (server, 5000),
        }
    )


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(asked(), id="curl"),
        pytest.param(asked("lab.example:5000"), id="curl by another name"),
        pytest.param(asked(sec_fetch_site="same-origin"), id="our page"),
        pytest.param(asked("localhost:5000", sec_fetch_site="none"), id="typed by a person"),
        pytest.param(asked("[::1]:5000", "::1", sec_fetch_site="same-origin"), id="our page, IPv6"),
        pytest.param(asked(origin="http://127.0.0.1:5000"), id="our page in an old browser"),
        pytest.param(asked("lab.example:5000", "192.0.2.7", sec_fetch_site="same-origin"), id="from elsewhere"),
        pytest.param(asked(sec_fetch_site="same-origin", origin="https://lab.example"), id="behind a proxy"),
    ],
)
def test_those_may(request_):
    check_same_origin(request_)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(asked(sec_fetch_site="cross-site", origin="http://127.0.0.1:5000"), id="another site"),
        pytest.param(asked(sec_fetch_site="same-site"), id="another port"),
        pytest.param(asked(origin="http://evil.example"), id="another site in an old browser"),
        pytest.param(asked(origin="null"), id="a sandboxed frame"),
        pytest.param(asked(referer="http://[evil"), id="no URL"),
        pytest.param(asked("evil.example:5000", sec_fetch_site="same-origin"), id="a name that leads here"),
        pytest.param(asked("evil.example:5000", origin="http://evil.example:5000"), id="the same, in an old browser"),
        pytest.param(asked("127.0.0.1.evil.example", sec_fetch_site="same-origin"), id="a name like an address"),
        pytest.param(asked("[evil", sec_fetch_site="same-origin"), id="no name"),
    ],
)
def test_those_may_not(request_):
    with pytest.raises(Refusal, match="another site"):
        check_same_origin(request_)
