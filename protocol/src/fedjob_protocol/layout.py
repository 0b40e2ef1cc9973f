"""Names in the aggregator's folder and in checkpoints, and of what is built in: for who writes and who reads them."""

from typing import Final

CHECKPOINT_FOLDER: Final = "checkpoints"
ROUND_LOG_NAME: Final = "rounds.jsonl"
"""One `fedjob_protocol.messages.RoundRecord` as JSON per line."""
ROUND_KEY: Final = "fedjob.round"
"""Key in a checkpoint's metadata: its round, in decimal."""
PARENT_KEY: Final = "fedjob.parent"
"""Key in a checkpoint's metadata: digest of the checkpoint before; absent in that of round 0."""
STATE_KEY: Final = "fedjob.state"
"""Key in a checkpoint's metadata: digest of the file with the strategy's state; absent where it has none."""
STATE_BYTES_KEY: Final = "fedjob.stateBytes"
"""Key in a checkpoint's metadata: length of that file, in decimal."""

BASE_KEY: Final = "fedjob.base"
"""Key in a checkpoint's metadata: digest of the model that its round started from, where that is not the one before."""


def checkpoint_name(round_number: int) -> str:
    """Path of a round's checkpoint below the aggregator's folder."""
    return f"{CHECKPOINT_FOLDER}/round-{round_number:06d}.safetensors"


def state_name(round_number: int) -> str:
    """Path of the state that a strategy goes on from after a round, below the aggregator's folder."""
    return f"{CHECKPOINT_FOLDER}/round-{round_number:06d}.state.safetensors"
