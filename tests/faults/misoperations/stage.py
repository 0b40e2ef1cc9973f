"""Where jobs are mistreated: a real API server, a fake node whose pods are processes, and one real operator."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Self

from tests.support.cluster.access import path
from tests.support.cluster.apiserver import Answer, ApiServer
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.operator_process import OperatorProcess
from tests.support.cluster.operators import Operators, tracebacks
from tests.support.repository import ROOT

Document = dict[str, Any]


class Stage:
    """The place, and what holds for all jobs on it.

    Args:
        cluster: The API server and the node.
        operator: Looks after all namespaces.
        folder: Where trainers look for files.
    """

    def __init__(self, cluster: Cluster, operator: OperatorProcess, folder: Path) -> None:
        self.cluster = cluster
        self._operator = operator
        self._folder = folder
        self._numbers = count(1)
        self._pid = operator.process.pid

    @classmethod
    @contextmanager
    def open(cls, folder: Path, assets: Path) -> Iterator[Self]:
        """Start everything; stop it at the end."""
        (folder / "api-server").mkdir()
        with ApiServer.start(folder / "api-server", assets) as server:
            server.apply(ROOT / "crds")
            server.start_controllers()
            cluster = Cluster(server, folder / "cluster")
            operators = Operators(cluster, folder / "operators")
            try:
                yield cls(cluster, operators.start(), folder)
            finally:
                operators.close()
                cluster.close()

    def home(self) -> tuple[str, Path]:
        """A namespace, and an empty folder, of one job's own."""
        name = f"misoperation-{next(self._numbers)}"
        self.cluster.server.create_namespace(name)
        folder = self._folder / name
        folder.mkdir()
        return name, folder

    def complaints(self) -> list[str]:
        """What went wrong with the operator or the node; empty if nothing did."""
        told = [] if self._operator.is_running else [f"the operator ended with {self._operator.returncode}"]
        if not told and self._operator.process.pid != self._pid:
            told.append("the operator was started again")
        return [*told, *tracebacks(self._operator), *map(repr, self.cluster.node_errors())]

    def try_to_create(self, manifest: Document) -> Answer:
        """Ask the API server whether it would take a job."""
        where = f"{path('federatedjobs', 'default')}?dryRun=All&fieldValidation=Strict"
        return self.cluster.server.request("POST", where, manifest)
