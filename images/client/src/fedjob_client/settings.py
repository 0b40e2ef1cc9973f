"""What a client process is told by its flags and its environment. Imports nothing that imports NumPy."""

import os
import stat
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from fedjob_client.errors import SettingsError
from fedjob_client.parameters import describe
from fedjob_protocol.config import CONFIG_VARIABLE, TOKEN_VARIABLE, ClientConfig, Device
from fedjob_protocol.registration import REGISTRATION_TOKEN_VARIABLE

THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""Numbers of threads that libraries read when they are imported. One each: the bits of a result depend on it, and two
pools of spinning threads on the same cores cost more than they bring."""
NUMBA_CACHE_VARIABLE: Final = "NUMBA_CACHE_DIR"
NUMBA_OCCUPANCY_VARIABLE: Final = "NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS"
"""Numba warns of problems that are too small to keep a GPU busy; there is nothing wrong with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One client process."""

    host: str = "127.0.0.1"
    port: int = 8000
    index: int = 0
    """Of the simple forms; a job's client has the index of its job."""
    metrics_port: int | None = None
    """Where Prometheus is answered; ``None``: nowhere."""
    device: Device = Device.AUTO
    threads: int = 1
    """Threads that the convolutional network is computed with; its bits do not depend on them."""
    server_url: str | None = None
    """Aggregator to register with; goes with `client_url`."""
    client_url: str | None = None
    """Address under which the aggregator reaches this client."""
    registration_token: str | None = None
    """What is shown to register; ``None`` shows nothing."""
    group: str | None = None
    """The client group to register for; ``None``: any that takes it."""
    token: str | None = None
    """The job's token; ``None`` asks for none."""
    config: ClientConfig | None = None
    """The job; ``None`` serves the simple forms."""
    state_dir: str | None = None
    """Folder for layers that stay at this client; ``None``: they live as long as the process."""
    stopped_exit_code: int = 0
    """Exit code after SIGTERM."""

    def __post_init__(self) -> None:
        if (self.server_url is None) != (self.client_url is None):
            missing = "--client-url (CLIENT_URL)" if self.client_url is None else "--server-url (SERVER_URL)"
            raise SettingsError(f"to register with an aggregator both URLs are needed: {missing} is missing")
        for url in (self.server_url, self.client_url):
            if url is not None and not url.startswith(("http://", "https://")):
                raise SettingsError(f"{url!r} is no URL: it has to start with http:// or https://")


def read_config(environment: Mapping[str, str]) -> ClientConfig | None:
    """The job's settings, or ``None`` where there is no job.

    Raises:
        SettingsError: They are no `ClientConfig`.
    """
    text = environment.get(CONFIG_VARIABLE)
    if not text:
        return None
    try:
        return ClientConfig.model_validate_json(text)
    except ValidationError as problem:
        raise SettingsError(f"{CONFIG_VARIABLE}: {describe(problem, ClientConfig)}") from None


def read_token(environment: Mapping[str, str]) -> str | None:
    """The job's token, or ``None``."""
    return environment.get(TOKEN_VARIABLE) or None


def read_registration_token(environment: Mapping[str, str]) -> str | None:
    """What is shown to register, or ``None``."""
    return environment.get(REGISTRATION_TOKEN_VARIABLE) or None


def prepare_environment(environment: MutableMapping[str, str]) -> None:
    """Set what libraries read when they are imported, where the user has not: call it before NumPy is.

    Args:
        environment: Normally ``os.environ``.
    """
    for name in THREAD_VARIABLES:
        environment.setdefault(name, "1")
    environment.setdefault(NUMBA_OCCUPANCY_VARIABLE, "0")
    if NUMBA_CACHE_VARIABLE not in environment:
        environment[NUMBA_CACHE_VARIABLE] = str(_own_cache_folder(environment))


def tell_identity(environment: MutableMapping[str, str], config: ClientConfig) -> None:
    """Let trainers know who they are in the environment, too."""
    environment.setdefault("FEDJOB_CLIENT_INDEX", str(config.index))
    environment.setdefault("FEDJOB_CLIENT_NAME", config.name)
    environment.setdefault("FEDJOB_CLIENT_GROUP", config.group)


def _own_cache_folder(environment: Mapping[str, str]) -> Path:
    """A folder for compiled kernels that this user alone can write: what is in it is executed."""
    base = environment.get("XDG_CACHE_HOME") or (environment.get("HOME") and f"{environment['HOME']}/.cache")
    user = os.getuid() if sys.platform != "win32" else "user"
    folders = [Path(base) / "fedjob" / "numba"] if base else []
    for folder in (*folders, Path(tempfile.gettempdir()) / f"fedjob-numba-{user}"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue  # a read-only or missing home, as in a restricted pod
        if _is_ours(folder):
            return folder
    return Path(tempfile.mkdtemp(prefix="fedjob-numba-"))


def _is_ours(folder: Path) -> bool:
    if not os.access(folder, os.W_OK):
        return False
    if sys.platform == "win32":
        return True
    status = folder.lstat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & others
