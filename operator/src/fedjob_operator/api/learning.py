"""The part of the spec that says what is learned: model, data, training, strategy, objective."""

from typing import Annotated

from pydantic import Field

from fedjob_operator.api.base import (
    Amount,
    FreeForm,
    Label,
    MetricName,
    Number,
    NumRounds,
    ObjectName,
    Path,
    RoundNumber,
    SpecModel,
    StrategyParameters,
    TensorPattern,
    Whole,
    Word,
)
from fedjob_operator.api.enums import (
    Checkpoint,
    ObjectiveMode,
    PartitionScheme,
    Weighting,
)
from fedjob_protocol.messages import DEFAULT_MAX_MODEL_BYTES


class JobCheckpoint(SpecModel):
    """A checkpoint of another FederatedJob in the same namespace."""

    name: Label
    """Name of the other job."""
    checkpoint: Checkpoint = Checkpoint.FINAL
    """Which of its checkpoints: Best (by its objective), Final (the newest) or Round. Default Final."""
    round: RoundNumber | None = None
    """Number of the round; needed with checkpoint Round, and only there."""


class ClaimCheckpoint(SpecModel):
    """A safetensors file on a PersistentVolumeClaim in the same namespace."""

    name: ObjectName
    """Name of the PersistentVolumeClaim."""
    path: Path
    """Path of the file on the volume."""


class InitFrom(SpecModel):
    """Where the initial model comes from: exactly one of the three."""

    federated_job: JobCheckpoint | None = None
    """A checkpoint of another FederatedJob."""
    claim: ClaimCheckpoint | None = None
    """A safetensors file on a volume."""
    file: Path | None = None
    """A safetensors file on this machine; for `fedjob run` only."""


class ModelSpec(SpecModel):
    """The model that is trained. Immutable."""

    name: Word
    """A built-in model (linear, logistic, softmax, mlp, cnn), or any name where the groups bring their own trainer."""
    parameters: FreeForm = Field(default={})
    """Parameters of the model, such as the sizes of its layers. Default: the model's own."""
    exclude: tuple[TensorPattern, ...] = Field(default=(), max_length=64)
    """Patterns of tensors that stay at each client and are trained there alone, such as `head.*`: `*` is any text, `?`
    one character. Default: none."""
    init_from: InitFrom | None = None
    """Where the initial model comes from. Default: the ready client with the lowest index makes it from `seed`."""
    max_bytes: Amount = DEFAULT_MAX_MODEL_BYTES
    """Largest size of the model in bytes; a larger one is refused. Default 8589934592 (8 GiB)."""


class Partition(SpecModel):
    """How one data set is divided among the clients: disjoint, and the same for the same seed."""

    scheme: PartitionScheme
    """IID, Dirichlet (label proportions differ), Shards (sorted by label, cut and dealt), ByLabel (each client has
    one label) or QuantitySkew (sizes differ)."""
    alpha: Number | None = Field(default=None, gt=0, le=1_000_000)
    """Concentration, more than 0: the smaller, the more the clients differ. Needed for Dirichlet and QuantitySkew."""
    shards_per_client: Annotated[int, Whole(1, 10_000)] | None = None
    """Shards that each client gets, for Shards. Default 2."""


class DataSpec(SpecModel):
    """The data that clients train on. Immutable."""

    name: Word
    """A built-in data set (synthetic-linear, synthetic-logistic, digits, mnist, cifar10, npz, csv), or any name where
    the groups bring their own trainer."""
    path: Path | None = None
    """File or folder of the data, as a client sees it. Default: the data set's own place, where it needs none."""
    partition: Partition | None = None
    """How the data are divided among the clients. Default: each client trains on all that it finds."""
    parameters: FreeForm = Field(default={})
    """Parameters of the data set, such as the names of arrays or columns. Default: the data set's own."""
    max_train_samples: Amount | None = None
    """Use at most this many training examples, before partitioning. Default: all."""
    max_test_samples: Amount | None = None
    """Use at most this many held-out examples. Default: all."""


class DataOverride(SpecModel):
    """Data of one client group or of the evaluation.

    Without `name` the fields given here replace those of `spec.data`; with `name` nothing of `spec.data` is left.
    """

    name: Word | None = None
    """Another data set. Default: that of `spec.data`."""
    path: Path | None = None
    """File or folder of the data, as the client sees it. Default: that of `spec.data`."""
    partition: Partition | None = None
    """How the data are divided among the clients. Default: that of `spec.data`."""
    parameters: FreeForm | None = None
    """Parameters of the data set, all of them. Default: those of `spec.data`."""
    max_train_samples: Amount | None = None
    """Use at most this many training examples. Default: that of `spec.data`."""
    max_test_samples: Amount | None = None
    """Use at most this many held-out examples. Default: that of `spec.data`."""


class Optimizer(SpecModel):
    """The optimizer of the local training; its state is not kept over rounds."""

    name: Word = "SGD"
    """A built-in optimizer (SGD, Adam), or one that your trainer knows. Default SGD."""
    parameters: FreeForm = Field(default={})
    """Of SGD: momentum, weightDecay. Of Adam: beta1, beta2, epsilon, weightDecay. Default momentum 0, beta1 0.9,
    beta2 0.999, epsilon 1e-8, weightDecay 0."""


class LearningRateSchedule(SpecModel):
    """How the learning rate changes over the rounds; the operator computes it, so it holds for every trainer."""

    name: Word
    """Constant, Step (times gamma after every everyRounds rounds), Exponential (times gamma after every round) or
    Cosine (down to minLearningRate over all rounds)."""
    parameters: FreeForm = Field(default={})
    """Of Step: everyRounds, gamma. Of Exponential: gamma. Of Cosine: minLearningRate. Default of Step's gamma 0.1, of
    minLearningRate 0; the others are needed."""


class Training(SpecModel):
    """What a client does in one round. Immutable."""

    epochs: Annotated[int, Whole(1, 1_000_000)] = 1
    """Passes over the client's data in one round. Default 1."""
    batch_size: Annotated[int, Whole(1, 10_000_000)] = 32
    """Examples in one step. Default 32."""
    learning_rate: Number = Field(default=0.1, gt=0, le=1_000_000)
    """Step size, more than 0. Default 0.1."""
    optimizer: Optimizer = Optimizer()
    """The optimizer. Default SGD."""
    learning_rate_schedule: LearningRateSchedule | None = None
    """How the learning rate changes over the rounds. Default: it does not."""
    parameters: FreeForm = Field(default={})
    """Anything that your own trainer wants to know. Default: nothing."""


class Strategy(SpecModel):
    """How the updates of a round become the next model. Immutable."""

    name: Word = "FedAvg"
    """FedAvg, FedProx, FedAvgM, FedAdam, FedYogi, FedAdagrad (these begin with the weighted mean of the updates),
    Median, TrimmedMean, Krum, MultiKrum (these bound what wrong updates can do), or one that a package in the
    aggregator's image offers. Default FedAvg."""
    weighting: Weighting = Weighting.EXAMPLES
    """How much an update counts in a mean: Examples (by its number of training examples) or Uniform. Median,
    TrimmedMean, Krum and MultiKrum count each the same, whatever is said here. Default Examples."""
    parameters: StrategyParameters = Field(default={})
    """Parameters of the strategy, all of them numbers for the built-in ones; a strategy of your own may have others.
    Default: the strategy's own."""


class Objective(SpecModel):
    """What the job is after; decides which model is the best. Immutable."""

    metric: MetricName
    """Name of a metric that evaluation reports, such as accuracy or loss."""
    mode: ObjectiveMode
    """Whether more (Max) or less (Min) is better."""


class Stop(SpecModel):
    """When to stop before the last round. May be changed."""

    target: Number | None = None
    """Stop when the objective's metric has reached this value. Default: never."""
    patience_rounds: NumRounds | None = None
    """Stop when the metric has not become better for this many rounds. Default: never."""
    min_delta: Number = Field(default=0.0, ge=0)
    """The least change of the metric that counts as better. Default 0."""
