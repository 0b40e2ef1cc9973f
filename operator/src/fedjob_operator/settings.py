"""What an operator is told when it starts."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fedjob_operator.build.settings import PodSettings

KEY_SECRET: Final = "fedjob-operator-key"  # noqa: S105 - the Secret's name
LEASE: Final = "fedjob-operator"
HEALTH_PORT: Final = 8080
METRICS_PORT: Final = 9090
ENVIRONMENT_PREFIX: Final = "FEDJOB_OPERATOR"
"""Every flag is also an environment variable: ``--client-image`` is ``FEDJOB_OPERATOR_CLIENT_IMAGE``."""


class Reach(StrEnum):
    """How the operator reaches pods."""

    DIRECT = "direct"
    """By their addresses, from inside the cluster."""
    API_PROXY = "api-proxy"
    """Through the API server, from a developer's machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """Settings of an operator."""

    pods: PodSettings
    """What every pod gets."""
    namespace: str
    """The operator's own: its Lease and its key are there."""
    identity: str
    """Who holds the Lease; the same only for a process that follows this one in the same pod."""
    namespaces: tuple[str, ...] = ()
    """Namespaces whose jobs are driven; none is all."""
    key_secret: str = KEY_SECRET
    """Name of the Secret with the operator's key."""
    lease: str = LEASE
    """Name of the Lease."""
    host: str = "0.0.0.0"  # noqa: S104 - a pod of its own
    """Address that health and metrics listen on."""
    health_port: int = HEALTH_PORT
    """Port of /healthz and /readyz; 0 picks a free one."""
    metrics_port: int = METRICS_PORT
    """Port of /metrics; 0 picks a free one."""
    reach: Reach = Reach.DIRECT
    kubeconfig: str | None = None
    """Path of a kubeconfig; ``None`` is the pod's ServiceAccount, or outside a cluster the usual kubeconfig."""
    context: str | None = None
    """Context in the kubeconfig; ``None`` is its current one."""
