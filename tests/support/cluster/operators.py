"""Operators of one test, or of one file of tests: started as it asks, stopped at its end."""

import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from tests.support.cluster.access import Access
from tests.support.cluster.cluster import Cluster, ProxyHandle
from tests.support.cluster.operator_process import MODULE, OperatorProcess, Settings

_NUMBERS = count(1)


class Operators:
    """Starts operators, each with a namespace of its own for its Lease and key.

    Args:
        cluster: Where.
        folder: Holds their logs.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._operators: list[OperatorProcess] = []

    def start(
        self,
        *namespaces: str,
        proxy: ProxyHandle | None = None,
        beside: OperatorProcess | None = None,
        access: Access | None = None,
        own_namespace: str | None = None,
        arguments: Sequence[str] = MODULE,
        wait: bool = True,
        **variables: str,
    ) -> OperatorProcess:
        """Start an operator.

        Args:
            namespaces: Which it watches; none is all.
            proxy: What it reaches the API server through.
            beside: Another operator whose Lease and key it shares.
            access: Who it is; the administrator where it is not given.
            own_namespace: Where its Lease and key are; made where it is not given.
            arguments: What the interpreter is given.
            wait: Whether to wait until it is ready.
            variables: Further environment variables.
        """
        number = next(_NUMBERS)
        own = own_namespace or (beside.settings.own_namespace if beside else None)
        if own is None:
            own = f"operator-{number}"
            self._cluster.server.create_namespace(own)
        who = access or self._cluster.access
        settings = Settings(
            access=who.at(proxy.url) if proxy else who,
            own_namespace=own,
            namespaces=namespaces,
            arguments=tuple(arguments),
            variables=tuple(variables.items()),
        )
        operator = OperatorProcess(settings, self._folder / f"operator-{number}")
        self._operators.append(operator)
        operator.start(wait=wait)
        return operator

    def close(self) -> None:
        """Stop them all, at the same time."""
        for operator in self._operators:
            operator.terminate()
        for operator in self._operators:
            operator.stop()

    def report(self) -> str:
        """Their logs, for a failure."""
        return "\n".join(operator.report() for operator in self._operators)


def tracebacks(operator: OperatorProcess) -> list[str]:
    """Lines of an operator's log that tell of an unexpected error.

    kopf says so, too, when a watch is refused, before we begin all watches anew; that is expected.
    """
    found, logger = [], ""
    for line in operator.log().splitlines():
        if header := _HEADER.match(line):
            logger = header["logger"]
        if "beginning anew" in line or ("Traceback" in line and not logger.startswith("kopf._core.reactor")):
            found.append(line)
    return found


_HEADER = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ (?P<logger>[\w.]+): ")
