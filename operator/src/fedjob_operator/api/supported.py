"""What of the resource this release can do: the API is larger, so that what follows needs no new version of it.

The operator asks before it accepts a job, `fedjob run` before it starts one.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from fedjob_operator.api.builtin import Known, builtin_problems
from fedjob_operator.api.enums import ClientPods, EvaluationMode, LateJoiners
from fedjob_operator.api.hyperparameters import not_built_in, training_problems
from fedjob_operator.api.problems import Problem
from fedjob_operator.api.spec import FederatedJobSpec
from fedjob_protocol.builtin import DATA_PARAMETERS, MODEL_PARAMETERS
from fedjob_protocol.strategies import BUILT_IN_STRATEGIES


def unsupported(
    spec: FederatedJobSpec,
    *,
    known_models: Known | None = None,
    known_data: Known | None = None,
    known_strategies: Collection[str] | None = BUILT_IN_STRATEGIES.keys(),
) -> list[Problem]:
    """Return what no engine of this release can do, in the order of a manifest; empty if there is nothing.

    Args:
        spec: A sound spec.
        known_models: The built-in models and their parameters; None checks none. Groups with a trainer may use any.
        known_data: The built-in data sets, likewise.
        known_strategies: Names of the strategies that the aggregator has; None: it has an image of its own, so that
            nobody knows before it is asked.
    """
    return [
        *builtin_problems(spec, models=known_models, data=known_data),
        *_learning(spec),
        *_strategy(spec, known_strategies),
        *_running(spec),
        *_turns(spec),
    ]


def unsupported_on_cluster(
    spec: FederatedJobSpec,
    *,
    known_models: Known = MODEL_PARAMETERS,
    known_data: Known = DATA_PARAMETERS,
) -> list[Problem]:
    """Return what the operator of this release cannot do; arguments as of `unsupported`.

    Strategies of one's own come with an image of the aggregator that the manifest names. A group's image may be of
    another release, or the user's, and know other models and data: nothing is said of those then.
    """
    strategies = None if image_in(spec.aggregator.template, "aggregator") else BUILT_IN_STRATEGIES.keys()
    is_ours = not any(group.image for group in spec.client_groups)
    others = unsupported(
        spec,
        known_models=known_models if is_ours else None,
        known_data=known_data if is_ours else None,
        known_strategies=strategies,
    )
    return [*_cluster(spec), *others]


def image_in(template: Mapping[str, Any] | None, container: str) -> str | None:
    """The image that a template gives a container; ``None`` if none."""
    pod = (template or {}).get("spec")
    containers = pod.get("containers") if isinstance(pod, Mapping) else None
    for item in containers if isinstance(containers, list) else ():
        if isinstance(item, Mapping) and item.get("name") == container and isinstance(item.get("image"), str):
            return str(item["image"])
    return None


def _cluster(spec: FederatedJobSpec) -> Iterator[Problem]:
    origin = spec.model.init_from
    if origin is not None and origin.file is not None:
        yield Problem("spec.model.initFrom.file", "is a file of one machine; use claim or federatedJob")


def _learning(spec: FederatedJobSpec) -> Iterator[Problem]:
    yield from training_problems(spec)


def _strategy(spec: FederatedJobSpec, known: Collection[str] | None) -> Iterator[Problem]:
    if known is not None and spec.strategy.name not in known:
        yield not_built_in("spec.strategy.name", spec.strategy.name, known)


def _turns(spec: FederatedJobSpec) -> Iterator[Problem]:
    """What makes no sense where a client has a pod only while it is selected."""
    if spec.client_pods is not ClientPods.PER_ROUND:
        return
    if spec.late_joiners is LateJoiners.REFUSE:
        yield Problem("spec.lateJoiners", "Refuse, but with clientPods PerRound nobody is there before its turn")
    if EvaluationMode.CLIENTS in spec.evaluation.modes:
        yield Problem("spec.evaluation.modes", "Clients, but with clientPods PerRound none is there between rounds")
    for index, group in enumerate(spec.client_groups):
        if group.external is not None:
            yield Problem(f"spec.clientGroups[{index}].external", "has no pods that clientPods PerRound could release")


def _running(spec: FederatedJobSpec) -> Iterator[Problem]:
    outside = [index for index, group in enumerate(spec.client_groups) if group.external is not None]
    if outside and spec.aggregator.replicas > 1:
        message = f"{spec.aggregator.replicas}, but clients that register themselves know one aggregator only; use 1"
        yield Problem("spec.aggregator.replicas", message)
    if len(outside) == len(spec.client_groups) and spec.model.init_from is not None:
        message = "is read by a client that is started here, and all groups are external; add a group with replicas"
        yield Problem("spec.model.initFrom", message)
