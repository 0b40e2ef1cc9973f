"""What all fault runs of a session share: one API server with its fake node, and where programs come from."""

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.faults.api.recorder import Recorder
from tests.support.cluster.apiserver import ApiServer
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.forks import Forks
from tests.support.cluster.programs import forked
from tests.support.faults.spawn import zygote
from tests.support.repository import ROOT

HANDS = 64
"""Most faults that are being dealt at the same moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The surroundings of fault runs."""

    cluster: Cluster
    forks: Forks
    recorder: Recorder
    folder: Path
    hands: ThreadPoolExecutor
    """What a fault does is done here, while the request that provoked it waits."""
    _numbers: "count[int]" = field(default_factory=lambda: count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    @contextmanager
    def open(cls, folder: Path, assets: Path) -> Iterator["Stage"]:
        """Start everything; nothing of it is left afterwards."""
        with (
            tempfile.TemporaryDirectory(prefix="fedjob-") as short,  # the path of a socket has a limit
            zygote(Path(short) / "zygote") as programs,
            ApiServer.start(folder / "server", assets) as server,
            ThreadPoolExecutor(HANDS) as hands,
        ):
            server.apply(ROOT / "crds")
            server.start_controllers()
            forks = Forks(programs)
            cluster = Cluster(server, folder, launch=forked(forks))
            recorder = Recorder(cluster.access)
            try:
                yield cls(cluster=cluster, forks=forks, recorder=recorder, folder=folder, hands=hands)
            finally:
                recorder.close()
                cluster.close()
                forks.close()
            assert cluster.node_errors() == []

    def namespace(self) -> str:
        """A new namespace."""
        with self._lock:
            name = f"run-{next(self._numbers)}"
        self.cluster.server.create_namespace(name)
        return name
