"""What this machine cannot do of a job, seen before anything is started."""

from importlib.metadata import entry_points
from pathlib import Path

from fedjob_operator.api.local import local_problems
from fedjob_operator.api.problems import Problem
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_protocol.builtin import DATA_PARAMETERS, DATA_WITH_PATH, MODEL_PARAMETERS
from fedjob_protocol.strategies import BUILT_IN_STRATEGIES, ENTRY_POINTS


def problems_here(job: FederatedJob) -> list[Problem]:
    """What this machine cannot do; programs run in this environment, with the strategies that are installed in it."""
    is_built_in = job.spec.strategy.name in BUILT_IN_STRATEGIES
    installed = [] if is_built_in else [entry.name for entry in entry_points(group=ENTRY_POINTS)]
    return local_problems(
        job,
        known_models=MODEL_PARAMETERS,
        known_data=DATA_PARAMETERS,
        known_strategies=[*BUILT_IN_STRATEGIES, *installed],
    )


def missing_paths(job: FederatedJob, folder: Path) -> list[Problem]:
    """Data and models that are to be read from a path that does not exist.

    Args:
        job: A job whose spec is sound.
        folder: Where relative paths start.
    """
    spec = job.spec
    paths = [("spec.data.path", spec.data.path if spec.data else None)]
    paths += [
        (f"spec.clientGroups[{index}].data.path", group.data.path if group.data else None)
        for index, group in enumerate(spec.client_groups)
    ]
    paths.append(("spec.evaluation.data.path", spec.evaluation.data.path if spec.evaluation.data else None))
    init_from = spec.model.init_from
    paths.append(("spec.model.initFrom.file", init_from.file if init_from else None))
    problems = [
        Problem(where, f"there is no {folder / path}")
        for where, path in paths
        if path is not None and not (folder / path).exists()
    ]
    if spec.data and spec.data.path is None and spec.data.name in DATA_WITH_PATH:
        problems.append(Problem("spec.data.path", f"{spec.data.name} is read from a path; name its file or folder"))
    return problems
