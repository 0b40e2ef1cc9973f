"""How we log in to an API server: as the pod's ServiceAccount, or with a kubeconfig as kubectl does."""

import os
import ssl
from typing import Final

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.aio.config.kube_config import KubeConfigLoader

from fedjob_protocol.errors import FedJobError

IN_CLUSTER_VARIABLE: Final = "KUBERNETES_SERVICE_HOST"
_TOKEN: Final = "BearerToken"  # noqa: S105 - the setting's name


class LoginError(FedJobError):
    """There is no way to log in to an API server."""


class Login:
    """An API server's address and our credentials.

    Args:
        configuration: Of the Kubernetes client.
        loader: Where the credentials came from, when they can be renewed; ``None`` in a cluster, where the client
            reads the ServiceAccount's token again by itself.
    """

    def __init__(self, configuration: Configuration, loader: KubeConfigLoader | None) -> None:
        self.configuration = configuration
        self._loader = loader

    @property
    def server(self) -> str:
        """URL of the API server, without a slash at the end."""
        return str(self.configuration.host).rstrip("/")

    async def authorization(self) -> dict[str, str]:
        """Return the header that says who we are; none where a client certificate does."""
        value = await self.configuration.get_api_key_with_prefix(_TOKEN, alias="authorization")
        return {"Authorization": value} if value else {}

    async def renew(self) -> None:
        """Read the credentials again, after the API server did not accept them."""
        if self._loader is not None:
            await self._loader.load_and_set(self.configuration)  # type: ignore[no-untyped-call] # the package has few

    def open_session(self) -> aiohttp.ClientSession:
        """Open a session that is logged in to the API server; to be used and closed in the running event loop."""
        connector = aiohttp.TCPConnector(limit=0, ssl=_tls(self.configuration))
        return aiohttp.ClientSession(
            connector=connector,
            proxy=self.configuration.proxy,
            trust_env=self._loader is not None,
            middlewares=(self._identify,),
        )

    async def _identify(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Say who we are with each request, as the token is now: it changes while we run."""
        request.headers.update(await self.authorization())
        return await handler(request)


async def log_in(kubeconfig: str | None, context: str | None) -> Login:
    """Log in with a kubeconfig if one is named, else as the pod's ServiceAccount, else with the usual kubeconfig.

    Args:
        kubeconfig: Path of a kubeconfig.
        context: Context in the kubeconfig; ``None`` is its current one.

    Raises:
        LoginError: Nothing of this is there, or it cannot be used.
    """
    configuration = Configuration()
    if kubeconfig is None and context is None and os.environ.get(IN_CLUSTER_VARIABLE):
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call] # as above
        except ConfigException as error:
            raise LoginError(f"cannot log in as the pod's ServiceAccount: {error}") from error
        # The API server is a neighbour: a proxy that is meant for the world outside does not know its address.
        configuration.client_session_kwargs = {"trust_env": False}
        return Login(configuration, None)
    path = kubeconfig or os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")  # noqa: ASYNC240, PTH111 - no I/O but of the password file
    try:
        loader = await load_kube_config(  # type: ignore[no-untyped-call] # as above
            config_file=path, context=context, client_configuration=configuration
        )
    except (ConfigException, OSError, ValueError) as error:
        raise LoginError(f"cannot log in with the kubeconfig {path}: {error}") from error
    return Login(configuration, loader)


def _tls(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
