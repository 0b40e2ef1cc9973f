"""The CustomResourceDefinition, made from the models of the resource."""

from typing import Any, Final

import yaml
from typing_extensions import override

from fedjob_operator.api.v1alpha1 import GROUP, KIND, PLURAL, SHORT_NAME, VERSION, FederatedJob
from generator.cel_changes import LIMITS
from generator.cel_rules import NAME
from generator.structural import Structural

NOTICE: Final = "# Made from the code by `make generate`: change the code, not this file.\n"
CRD_NAME: Final = f"{PLURAL}.{GROUP}"

_COLUMNS: Final = (
    ("STATE", "string", ".status.phase", "The state of the job in one word.", 0),
    ("ROUNDS", "string", ".status.summary.rounds", "Committed and all rounds.", 0),
    ("CLIENTS", "string", ".status.summary.clients", "Ready and desired clients.", 0),
    ("METRIC", "string", ".status.summary.metric", "The metric of the newest evaluated model.", 0),
    ("AGE", "date", ".metadata.creationTimestamp", "Time since the job was created.", 0),
    ("GPUS", "string", ".status.summary.gpus", "Held and requested GPUs.", 1),
    ("ATTEMPT", "integer", ".status.currentRound.attempt", "The attempt at the current round.", 1),
    ("REASON", "string", ".status.reason", "Why the job is in its state.", 1),
)
"""Name, type, path, description and priority of each column of `kubectl get`; 1 is for `-o wide` only."""


def custom_resource_definition() -> str:
    """The CRD as a file that `kubectl apply -f` takes."""
    return NOTICE + yaml.dump(document(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def document() -> dict[str, Any]:
    """The CRD as a tree."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CRD_NAME},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT_NAME],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _schema()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
                }
            ],
        },
    }


def _schema() -> dict[str, Any]:
    whole = FederatedJob.model_json_schema(by_alias=True)
    structural = Structural(whole["$defs"])
    spec, status = structural.spec("FederatedJobSpec"), structural.status("FederatedJobStatus")
    return {
        "description": whole["description"],
        "type": "object",
        "required": ["spec"],
        "properties": {
            # These three are the API server's: it checks them itself, for every resource.
            "apiVersion": {"description": whole["properties"]["apiVersion"]["description"], "type": "string"},
            "kind": {"description": whole["properties"]["kind"]["description"], "type": "string"},
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": [rule.entry() for rule in (NAME, *LIMITS)],
    }


def _column(name: str, kind: str, path: str, description: str, priority: int) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    # The API server leaves a 0 out: given here, it would be a difference at every apply.
    return {**column, "priority": priority} if priority else column


class _Dumper(yaml.SafeDumper):
    """Writes each place in full: an API server knows no anchors, and people look for none."""

    @override
    def ignore_aliases(self, data: object) -> bool:
        del data
        return True
