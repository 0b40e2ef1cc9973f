"""What a client process is told about its job."""

import pytest

from fedjob_operator.api.resolve import layout
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_operator.build.config import client_config
from fedjob_operator.core.observed import PodRole
from fedjob_protocol.config import PartitionScheme, Role

DIGITS = {"name": "digits", "partition": {"scheme": "Dirichlet", "alpha": 0.5}}


def accepted(**spec: object) -> FederatedJob:
    document = {
        "apiVersion": "fedjob.dev/v1alpha1",
        "kind": "FederatedJob",
        "metadata": {"name": "job", "uid": "uid-1"},
        "spec": {
            "rounds": 1,
            "seed": 7,
            "model": {"name": "mlp"},
            "data": DIGITS,
            "clientGroups": [{"name": "a", "replicas": 2}, {"name": "b", "replicas": 3}],
            **spec,
        },
    }
    job = FederatedJob.from_document(document)
    return job.model_copy(update={"status": job.status.model_copy(update={"layout": layout(job.spec)})})


@pytest.mark.parametrize(("index", "name"), [(0, "a-0"), (1, "a-1"), (2, "b-2"), (4, "b-4")])
def test_a_client_is_named_after_its_group_and_has_its_part_of_the_jobs_data(index, name):
    config = client_config(accepted(), role=PodRole.CLIENT, index=index)

    assert (config.name, config.index, config.seed, config.role) == (name, index, 7, Role.TRAINER)
    assert config.data.partition is not None
    partition = config.data.partition
    assert (partition.scheme, partition.index, partition.count) == (PartitionScheme.DIRICHLET, index, 5)


def test_a_groups_own_data_are_divided_within_the_group():
    groups = [{"name": "a", "replicas": 2}, {"name": "b", "replicas": 3, "data": DIGITS}]

    config = client_config(accepted(clientGroups=groups), role=PodRole.CLIENT, index=3)

    assert config.data.partition is not None
    assert (config.data.partition.index, config.data.partition.count) == (1, 3)


def test_a_groups_override_keeps_what_it_does_not_name():
    groups = [{"name": "a", "replicas": 2, "data": {"maxTrainSamples": 10}}]

    config = client_config(accepted(clientGroups=groups), role=PodRole.CLIENT, index=0)

    assert (config.data.name, config.data.max_train_samples) == ("digits", 10)
    assert config.data.partition is not None


def test_the_evaluator_holds_all_held_out_data():
    config = client_config(accepted(), role=PodRole.EVALUATOR, index=0)

    assert (config.role, config.name, config.data.partition) == (Role.EVALUATOR, "evaluator", None)


def test_parts_are_kept_for_the_clients_that_may_come():
    groups = [{"name": "a", "replicas": 2, "maxReplicas": 4}, {"name": "b", "replicas": 1}]

    config = client_config(accepted(clientGroups=groups), role=PodRole.CLIENT, index=4)

    assert config.name == "b-4"
    assert config.data.partition is not None
    assert config.data.partition.count == 5


def test_a_trainer_of_the_users_own_is_imported_from_the_manifests_folder():
    groups = [{"name": "a", "replicas": 1, "trainer": "mine:Trainer"}]

    config = client_config(accepted(clientGroups=groups), role=PodRole.CLIENT, index=0, trainer_path="here")

    assert (config.trainer, config.trainer_path) == ("mine:Trainer", "here")
