"""scikit-learn's linear classifier as a client of a federated job."""

from sklearn.linear_model import SGDClassifier

from fedjob_client.sklearn import SklearnTrainer
from fedjob_client.trainer import TrainConfig


class DigitsLinear(SklearnTrainer):
    """Reads digits of 8 x 8 pixels."""

    def make_estimator(self, config: TrainConfig) -> SGDClassifier:
        """Make a classifier for one training."""
        alpha = config.parameters.get("alpha", 0.0001)
        return SGDClassifier("log_loss", alpha=alpha, learning_rate="constant", eta0=config.learning_rate)
