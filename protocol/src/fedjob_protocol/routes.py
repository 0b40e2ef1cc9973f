"""Paths, header names, media types and ports, written once."""

from typing import Final

SAFETENSORS_MEDIA_TYPE: Final = "application/vnd.safetensors"

TOKEN_HEADER: Final = "Fedjob-Token"  # noqa: S105 - the header's name
"""Carries the job's token; a header of its own, because the API server's pod proxy strips ``Authorization``."""
PROTOCOL_HEADER: Final = "Fedjob-Protocol"
"""Carries `fedjob_protocol.version.PROTOCOL_VERSION`."""
TERM_HEADER: Final = "Fedjob-Term"
ATTEMPT_HEADER: Final = "Fedjob-Attempt"
BOOT_HEADER: Final = "Fedjob-Boot-Id"
JOB_HEADER: Final = "Fedjob-Job-Uid"
EXAMPLES_HEADER: Final = "Fedjob-Examples"
"""Number of training examples behind an update: a decimal integer."""
DIGEST_HEADER: Final = "Fedjob-Digest"
"""``xxh3-128:<hex>`` of an uploaded body; ``sha256:<hex>`` of a served model."""
METRICS_HEADER: Final = "Fedjob-Metrics"
"""JSON object of the client's training metrics, at most `MAX_METRICS_HEADER_BYTES`."""
EPOCHS_HEADER: Final = "Fedjob-Epochs"
"""JSON list of the training metrics of epochs, ``[{"epoch": 1, "accuracy": 0.5}, …]``, at most
`MAX_METRICS_HEADER_BYTES` and `MAX_EPOCH_METRICS` entries: of many epochs some, evenly, and always the last."""
SECONDS_HEADER: Final = "Fedjob-Train-Seconds"
"""Seconds that the client trained: a decimal number."""
MACHINE_HEADER: Final = "Fedjob-Machine"
"""What computed an update, as far as its bits depend on it: printable ASCII, at most `MAX_MACHINE_LENGTH`."""
ROUND_HEADER: Final = "Fedjob-Round"
"""Round of a served model."""

MAX_METRICS_HEADER_BYTES: Final = 4096
MAX_EPOCH_METRICS: Final = 50
MAX_MACHINE_LENGTH: Final = 256
MAX_JSON_BODY_BYTES: Final = 4 << 20
"""Largest JSON request that any endpoint reads, in bytes: the opening of a round with as many participants as a job can
have, whatever their names."""

ROUND_PATH: Final = "/v1/rounds/{round_number}"
ROUNDS_PATH: Final = "/v1/rounds"
UPDATE_PATH: Final = "/v1/rounds/{round_number}/updates/{client}"
FAILURE_PATH: Final = "/v1/rounds/{round_number}/failures/{client}"
EVALUATION_PATH: Final = "/v1/rounds/{round_number}/evaluation"
MODEL_PATH: Final = "/v1/models/{which}"
STATE_PATH: Final = "/v1/state"
CLIENTS_PATH: Final = "/v1/clients"
CLIENT_PATH: Final = "/v1/clients/{client}"
REGISTER_PATH: Final = "/clients"
TRAINING_PATH: Final = "/training"
SESSIONS_PATH: Final = "/v1/sessions"
LEADERSHIP_PATH: Final = "/v1/leadership"
STANDBY_PATH: Final = "/v1/replication/standbys/{name}"
COPY_PATH: Final = "/v1/replication/models/{round_number}"
COPY_STATE_PATH: Final = "/v1/replication/models/{round_number}/state"

TRAIN_PATH: Final = "/v1/rounds/{round_number}/train"
INIT_PATH: Final = "/v1/init"
EVALUATE_PATH: Final = "/v1/evaluate"
INFO_PATH: Final = "/v1/info"
JOB_PATH: Final = "/v1/job"
TURNED_AWAY_PATH: Final = "/v1/turned-away"

HEALTH_PATH: Final = "/health"
READY_PATH: Final = "/ready"

AGGREGATOR_PORT: Final = 9000
CLIENT_PORT: Final = 8000
REGISTERED_PORT: Final = 5000
"""Where a client that registers itself listens unless it is told otherwise: `docker run -p 5001:5000` reaches it."""
METRICS_PORT: Final = 9090


def round_path(round_number: int) -> str:
    """Path of one round, on the aggregator and on a client."""
    return ROUND_PATH.format(round_number=round_number)


def update_path(round_number: int, client: int) -> str:
    """Path that one client's update of one round is uploaded to."""
    return UPDATE_PATH.format(round_number=round_number, client=client)


def failure_path(round_number: int, client: int) -> str:
    """Path that one client's definitive failure in one round is reported to."""
    return FAILURE_PATH.format(round_number=round_number, client=client)


def evaluation_path(round_number: int) -> str:
    """Path that a round's evaluation is posted to."""
    return EVALUATION_PATH.format(round_number=round_number)


def client_path(client: int) -> str:
    """Path of one client on the aggregator."""
    return CLIENT_PATH.format(client=client)


def train_path(round_number: int) -> str:
    """Path of a client's training task for one round."""
    return TRAIN_PATH.format(round_number=round_number)


def model_path(which: str | int) -> str:
    """Path of a model: ``latest``, ``best`` or a round's number."""
    return MODEL_PATH.format(which=which)


def standby_path(name: str) -> str:
    """Path that a standby tells its leader what it holds by."""
    return STANDBY_PATH.format(name=name)


def copy_path(round_number: int) -> str:
    """Path that a standby copies a checkpoint from, also one that is not acknowledged yet."""
    return COPY_PATH.format(round_number=round_number)


def copy_state_path(round_number: int) -> str:
    """Path that a standby copies the strategy's state of a checkpoint from."""
    return COPY_STATE_PATH.format(round_number=round_number)
