"""A client that is broken, or hostile: what it learned, it sends with the wrong sign."""

from fedjob_client.models.builtin import BuiltinTrainer
from fedjob_client.trainer import ClientContext, EvalConfig, Metrics, Params, TrainConfig, Update


class SignFlipping:
    """The built-in trainer, but for the sign of its updates."""

    def __init__(self, context: ClientContext) -> None:
        self._trainer = BuiltinTrainer.from_context(context)

    def init(self, seed: int) -> Params:
        """As the built-in trainer."""
        return self._trainer.init(seed)

    def train(self, params: Params, config: TrainConfig) -> Update:
        """Train, and go as far the other way."""
        update = self._trainer.train(params, config)
        trained = update.params or {}
        delta = {name: params[name] - trained[name] for name in params}
        return Update(delta=delta, num_examples=update.num_examples, metrics=update.metrics)

    def evaluate(self, params: Params, config: EvalConfig) -> Metrics:
        """As the built-in trainer."""
        return self._trainer.evaluate(params, config)
