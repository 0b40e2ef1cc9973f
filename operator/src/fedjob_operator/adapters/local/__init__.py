"""The local engine: processes in the place of pods, a file in the place of the API server.

The command line uses these names and nothing below them.
"""

from fedjob_operator.adapters.local.job_file import JobFile
from fedjob_operator.adapters.local.origins import LocalOrigins
from fedjob_operator.adapters.local.processes import LocalPods, LocalSettings, leader_folder
from fedjob_operator.build.config import client_config, predictor_config

__all__ = [
    "JobFile",
    "LocalOrigins",
    "LocalPods",
    "LocalSettings",
    "client_config",
    "leader_folder",
    "predictor_config",
]
