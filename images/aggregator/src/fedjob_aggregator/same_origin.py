"""Who may change something without a token: this server's own pages, and programs that are no browsers.

A browser tells where a request comes from (``Sec-Fetch-Site``, ``Origin``, ``Referer``). It believes a page whose own
name was led to this machine ("DNS rebinding"), so over loopback the name that was asked for counts, too.
"""

from urllib.parse import urlsplit

from starlette.requests import Request

from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.hosts import address_of


def check_same_origin(request: Request) -> None:
    """Let only this server's own pages, and programs that are no browsers, change something.

    Raises:
        Refusal: ``forbidden``: the page of somebody else sent this.
    """
    site = request.headers.get("Sec-Fetch-Site")
    source = request.headers.get("Origin") or request.headers.get("Referer")
    if site is None and source is None:
        return
    is_own = site in {"same-origin", "none"} or (
        site is None and _netloc(source) == request.headers.get("Host", "").lower()
    )
    if not is_own or _is_rebound(request):
        raise Refusal(Word.FORBIDDEN, "this was sent by the page of another site; use the form of this server")


def _netloc(url: str | None) -> str:
    try:
        return urlsplit(url or "").netloc.lower()
    except ValueError:
        return ""


def _is_rebound(request: Request) -> bool:
    """Whether a page's own name was led to this machine: reached over loopback, and asked for by a name that is not."""
    server = request.scope.get("server")
    reached = address_of(server[0]) if server else None
    if reached is None or not reached.is_loopback:
        return False
    try:
        name = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    except ValueError:
        return True
    asked = address_of(name)
    return not (name == "localhost" or name.endswith(".localhost") or (asked is not None and asked.is_loopback))
