"""The commented manifest that `fedjob init` writes: it runs as it stands, and shows what else there is."""

from typing import Final

DEFAULT_NAME: Final = "my-job"

_TEMPLATE: Final = """\
# A federated training job. Run it on this machine with `fedjob run FILE`, check it with `fedjob validate FILE`,
# or give it to a cluster with `kubectl apply -f FILE`. Lines that begin with "# " and a field show what can be added.
apiVersion: fedjob.dev/v1alpha1
kind: FederatedJob
metadata:
  name: {name}                  # lower-case letters, digits and dashes; at most 40 characters
spec:
  rounds: 20
  seed: 0                       # everything that is drawn depends on it: same seed, same model

  model:
    name: mlp                   # built in: linear, logistic, softmax, mlp, cnn; or any name with your own trainer
    parameters: {{hiddenSizes: [64]}}
    # initFrom: {{file: start.safetensors}}

  data:
    name: digits                # built in: synthetic-linear, synthetic-logistic, digits, mnist, cifar10, npz, csv
    # path: /data/mnist         # where the files are, for mnist, cifar10, npz and csv
    partition:                  # how the data are divided among the clients; without it, each uses all that it finds
      scheme: Dirichlet         # IID, Dirichlet, Shards, ByLabel, QuantitySkew
      alpha: 0.5                # the smaller, the more the clients differ
    # maxTrainSamples: 1000

  training:                     # what a client does in one round
    epochs: 5
    batchSize: 32
    learningRate: 0.1
    # optimizer: {{name: SGD, parameters: {{momentum: 0.9}}}}

  # strategy: {{name: FedAdam, parameters: {{clipNorm: 10}}}}   # how updates become the next model; without it, FedAvg

  roundPolicy:
    # clientsPerRound: 50%      # a number, or a percentage of all clients; without it, all take part
    # overSelect: 1             # with clientsPerRound: ask one more, in case one is slow
    # minReports: 2             # at the deadline, this many are enough; without it, clientsPerRound
    deadlineSeconds: 300
    maxAttempts: 3
    onQuorumLoss: Wait          # or Fail

  clientGroups:
  - name: clients
    replicas: 5
    # trainer: my_package.client:MyTrainer    # your own model, importable from this file's folder
    # data: {{path: /data/hospital-a}}          # instead of spec.data

  evaluation:
    periodRounds: 1             # after every round, on data that no client trains on
    # modes: []                 # no evaluation, and then no objective

  objective: {{metric: accuracy, mode: Max}}    # decides which model is the best
  # stop: {{target: 0.97, patienceRounds: 5}}   # before the last round
  # activeDeadlineSeconds: 3600
"""


def manifest_template(name: str = DEFAULT_NAME) -> str:
    """Return the text of a manifest that is valid and runs on this machine.

    Args:
        name: Name of the job; whoever reads the manifest checks it.
    """
    return _TEMPLATE.format(name=name)
