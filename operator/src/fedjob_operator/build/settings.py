"""What an operator gives every pod that it makes, whatever the job says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


def _resources(memory_request: str, memory_limit: str) -> Mapping[str, Any]:
    """Small requests, so that a job fits a small cluster; limits that a runaway program meets before its node does."""
    return MappingProxyType(
        {
            "requests": {"cpu": "50m", "memory": memory_request},
            "limits": {"cpu": "4", "memory": memory_limit},
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Who besides a job's own pods may talk to them."""

    operator_namespace: str
    operator_labels: Mapping[str, str]
    """Labels of the operator's pods."""
    monitoring_namespace_labels: Mapping[str, str]
    """Labels of the namespace whose pods may read metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSettings:
    """Settings of the pods of all jobs; a job's own templates are laid over what follows from them."""

    client_image: str
    """Image of clients and evaluators where the job names none and has none pinned."""
    aggregator_image: str
    """Image of aggregators where the job has none pinned."""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    """Names of pull secrets in the job's namespace."""
    client_resources: Mapping[str, Any] = field(default_factory=lambda: _resources("128Mi", "4Gi"))
    """``requests`` and ``limits`` of clients and evaluators, before their GPUs."""
    aggregator_resources: Mapping[str, Any] = field(default_factory=lambda: _resources("192Mi", "4Gi"))
    service_accounts: frozenset[str] | None = None
    """ServiceAccounts that a template may name; ``None`` allows all, as a batch Job does."""
    policy: PolicySettings | None = None
    """``None`` makes no NetworkPolicies."""
    scratch_bytes: int = 1 << 30
    """Limit of each emptyDir: /tmp, HOME and /dev/shm."""
