"""scikit-learn's linear classifier as a client of a federated job."""

import numpy as np
from sklearn.linear_model import SGDClassifier

from fedjob_client.trainer import Array, ClientContext, EvalConfig, Metrics, Params, TrainConfig, Update


class MyTrainer:
    """Trains on this client's part of the data that the manifest names."""

    def __init__(self, context: ClientContext) -> None:
        self.data = context.load_data()

    def init(self, seed: int) -> Params:  # noqa: ARG002 - a convex problem can begin anywhere
        """Begin with zeros: ten classes, 64 pixels."""
        return {"w": np.zeros((10, 64), np.float32), "b": np.zeros(10, np.float32)}

    def train(self, params: Params, config: TrainConfig) -> Update:
        """Take a few passes over the client's own digits."""
        model = SGDClassifier(
            loss="log_loss",
            alpha=config.parameters.get("alpha", 0.0001),
            learning_rate="constant",
            eta0=config.learning_rate,
            random_state=config.seed % 2**32,
        )
        model.coef_, model.intercept_ = params["w"], params["b"]
        for _ in range(config.epochs):  # all ten classes are named: a client may have no example of some
            model.partial_fit(self.data.train.x, self.data.train.y, classes=np.arange(10))
        return Update(params={"w": model.coef_, "b": model.intercept_}, num_examples=len(self.data.train))

    def evaluate(self, params: Params, config: EvalConfig) -> Metrics:  # noqa: ARG002 - nothing to choose
        """Measure on the held-out digits."""
        guesses = self.predict(params, self.data.test.x)
        return {"accuracy": float(np.mean(guesses == self.data.test.y))}

    def predict(self, params: Params, inputs: Array) -> Array:
        """Return a digit for each row of pixels."""
        scores: Array = inputs @ params["w"].T + params["b"]
        return np.asarray(scores.argmax(axis=1))
