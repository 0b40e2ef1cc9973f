"""What `fedjob run` makes of a job: what it cannot do and refuses, and what it leaves aside."""

from collections.abc import Collection, Iterator

from fedjob_operator.api.builtin import Known
from fedjob_operator.api.enums import Device
from fedjob_operator.api.problems import Problem
from fedjob_operator.api.spec import ClientGroup, FederatedJobSpec
from fedjob_operator.api.supported import unsupported
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_protocol.strategies import BUILT_IN_STRATEGIES


def local_problems(
    job: FederatedJob,
    *,
    known_models: Known | None = None,
    known_data: Known | None = None,
    known_strategies: Collection[str] = BUILT_IN_STRATEGIES.keys(),
) -> list[Problem]:
    """Return what `fedjob run` cannot do, in the order of a manifest; empty if it can run the job.

    Args:
        job: A job whose spec is sound.
        known_models: The built-in models and their parameters; None checks none. Groups with a trainer may use any.
        known_data: The built-in data sets, likewise.
        known_strategies: Names of the strategies that are built in or installed.
    """
    spec = job.spec
    return [
        *unsupported(spec, known_models=known_models, known_data=known_data, known_strategies=known_strategies),
        *_running(spec),
        *(problem for index, group in enumerate(spec.client_groups) for problem in _group(index, group)),
    ]


def local_notes(job: FederatedJob) -> list[Problem]:
    """Return what `fedjob run` leaves aside because it is about pods and volumes; the job runs all the same."""
    spec = job.spec
    ignored: dict[str, object] = {
        f"spec.clientGroups[{index}].{name}": given
        for index, group in enumerate(spec.client_groups)
        for name, given in (
            ("image", group.image),
            ("gpus", group.gpus and group.device is not Device.GPU),
            ("volumeClaimTemplates", group.volume_claim_templates),
            ("template", group.template),
            ("external.tokenSecretRef", group.external is not None and group.external.token_secret_ref),
        )
    }
    ignored |= {
        "spec.aggregator.storage": "storage" in spec.aggregator.model_fields_set,
        "spec.aggregator.template": spec.aggregator.template,
        "spec.evaluation.gpus": spec.evaluation.gpus,
        "spec.evaluation.template": spec.evaluation.template,
        "spec.serve": spec.serve.replicas,
        "spec.ttlSecondsAfterFinished": spec.ttl_seconds_after_finished is not None,
    }
    return [Problem(path, "is ignored on this machine") for path, given in ignored.items() if given]


def _running(spec: FederatedJobSpec) -> Iterator[Problem]:
    origin = spec.model.init_from
    if origin is not None and origin.claim is not None:
        yield Problem("spec.model.initFrom.claim", "is a volume of a cluster; use file or federatedJob")
    if spec.suspend:
        yield Problem("spec.suspend", "is true; on this machine, interrupt the run and go on with --resume")


def _group(index: int, group: ClientGroup) -> Iterator[Problem]:
    path = f"spec.clientGroups[{index}]"
    if group.device is Device.GPU and group.gpus:
        yield Problem(f"{path}.gpus", f"{group.gpus} with device GPU: GPUs cannot be divided among clients here")
