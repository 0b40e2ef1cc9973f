"""What is wrong with the built-in models and data sets that a job names, and with the parameters it gives them."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from pydantic import BaseModel

from fedjob_operator.api.hyperparameters import not_built_in, parameter_problems
from fedjob_operator.api.learning import DataOverride
from fedjob_operator.api.problems import Problem
from fedjob_operator.api.spec import FederatedJobSpec

Known: TypeAlias = Mapping[str, type[BaseModel]]
"""What is built in, by name: the parameters of each."""


def builtin_problems(spec: FederatedJobSpec, *, models: Known | None, data: Known | None) -> Iterator[Problem]:
    """Yield them in the order of a manifest. Groups with a trainer of their own may have any names and parameters.

    Args:
        spec: A sound spec.
        models: The built-in models; None checks none.
        data: The built-in data sets, likewise.
    """
    built_in = [(index, group) for index, group in enumerate(spec.client_groups) if group.trainer is None]
    if built_in and models is not None:
        yield from _named("spec.model", spec.model.name, spec.model.parameters, models)
    if data is None:
        return
    if spec.data is not None and any(group.data is None or group.data.name is None for _, group in built_in):
        used = any(_inherits_parameters(group.data) for _, group in built_in)
        yield from _named("spec.data", spec.data.name, spec.data.parameters if used else {}, data)
    for index, group in built_in:
        yield from _override(f"spec.clientGroups[{index}].data", spec, group.data, data)
    if spec.client_groups[0].trainer is None:  # the evaluator runs the trainer of the first group
        yield from _override("spec.evaluation.data", spec, spec.evaluation.data, data)


def _inherits_parameters(data: DataOverride | None) -> bool:
    return data is None or (data.name is None and data.parameters is None)


def _override(path: str, spec: FederatedJobSpec, data: DataOverride | None, known: Known) -> Iterator[Problem]:
    """Of data that replace the job's: with a name of their own nothing of the job's is left."""
    if data is None:
        return
    if data.name is not None:
        yield from _named(path, data.name, data.parameters or {}, known)
    elif data.parameters is not None and spec.data is not None and spec.data.name in known:
        yield from parameter_problems(f"{path}.parameters", data.parameters, known[spec.data.name])


def _named(path: str, name: str, parameters: Mapping[str, object], known: Known) -> Iterator[Problem]:
    if name in known:
        yield from parameter_problems(f"{path}.parameters", parameters, known[name])
    else:
        yield not_built_in(f"{path}.name", name, known)
