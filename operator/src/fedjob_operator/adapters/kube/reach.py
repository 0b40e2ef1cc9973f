"""How pods are reached from outside the cluster: through the API server's proxy."""

from collections.abc import Callable
from urllib.parse import urlsplit

from fedjob_operator.adapters.kube.cache import PodCache
from fedjob_operator.ports import CallError


def through_api_server(server: str, cache: PodCache) -> Callable[[str], str]:
    """Return the map from a pod's URL to the URL of the API server's proxy to it.

    Tasks carry the pods' own URLs, which the other pods use; only our own calls take the detour. The proxy passes the
    header with the job's token on, and keeps our own ``Authorization`` to itself.

    Args:
        server: URL of the API server.
        cache: Knows which pod answers where.
    """

    def via(url: str) -> str:
        parts = urlsplit(url)
        pod = cache.pod_at(f"{parts.scheme}://{parts.netloc}")
        if pod is None:
            raise CallError(f"{url}: no pod that is ready answers there")
        namespace, name = pod
        query = f"?{parts.query}" if parts.query else ""
        return f"{server}/api/v1/namespaces/{namespace}/pods/{name}:{parts.port}/proxy{parts.path}{query}"

    return via
