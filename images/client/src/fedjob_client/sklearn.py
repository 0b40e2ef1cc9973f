"""A scikit-learn estimator as a client: say how the estimator is made.

For example, with the data that the manifest names::

    from sklearn.linear_model import SGDClassifier
    from fedjob_client.sklearn import SklearnTrainer

    class MyTrainer(SklearnTrainer):
        def make_estimator(self, config):
            return SGDClassifier(loss="log_loss", learning_rate="constant", eta0=config.learning_rate)

Any estimator will do that has ``partial_fit`` and keeps what it learned in ``coef_`` and ``intercept_`` (linear models)
or ``coefs_`` and ``intercepts_`` (multi-layer perceptrons): these arrays are the job's model. An epoch is one
``partial_fit`` over the client's examples. The estimator is made anew for each training, so nothing of one round is
kept for the next.
"""

import warnings
from typing import Any, Final

import numpy as np

from fedjob_client.data.dataset import Dataset
from fedjob_client.errors import DataError, TrainerError
from fedjob_client.trainer import Array, ClientContext, EvalConfig, Metrics, Params, TrainConfig, Update

__all__ = ["SklearnTrainer"]

SINGLE: Final = ("coef_", "intercept_")
"""Attributes of linear models: one array each."""
LAYERED: Final = ("coefs_", "intercepts_")
"""Attributes of perceptrons: a list of arrays each."""


class SklearnTrainer:
    """A client around an estimator; `make_estimator` has to be written, `load_data` can be overridden.

    Raises:
        DataError: The data that the manifest names cannot be read.
    """

    def __init__(self, context: ClientContext) -> None:
        self.context = context
        self.data = self.load_data()

    @property
    def num_examples(self) -> int | None:
        """Training examples of this client; an evaluator has none."""
        return len(self.data.train) if self.context.role == "Trainer" else None

    def make_estimator(self, config: TrainConfig) -> Any:  # noqa: ARG002 - for subclasses
        """Make the estimator for one training, from ``config.learning_rate``, ``config.parameters`` and the like.

        Its randomness is given to it afterwards: ``random_state`` is set from ``config.seed``.

        Raises:
            TrainerError: A subclass has to do it.
        """
        raise TrainerError(f"{type(self).__name__} has no method make_estimator")

    def load_data(self) -> Dataset:
        """Read the client's examples; by default what the manifest names."""
        return self.context.load_data()

    def init(self, seed: int) -> Params:
        """Zeros for linear models; what the estimator draws for perceptrons."""
        estimator = self._fresh(TrainConfig(round=0, seed=seed))
        params = _learned(estimator)
        is_linear = hasattr(estimator, SINGLE[0])
        return {name: np.zeros_like(array) for name, array in params.items()} if is_linear else params

    def train(self, params: Params, config: TrainConfig) -> Update:
        """Fit for some passes over the client's examples, beginning with the job's model."""
        if config.proximal_mu:
            raise TrainerError(
                "strategy FedProx adds to the gradient, which scikit-learn's estimators keep to themselves"
            )
        estimator = self._with(params, config)
        x, y = _rows(self.data.train.x), self.data.train.y
        order = np.random.Generator(np.random.PCG64(config.seed))
        metrics: dict[str, float] = {}
        for epoch in range(1, config.epochs + 1):
            rows = order.permutation(len(y))
            estimator.partial_fit(x[rows], y[rows])
            metrics = self._score(estimator, x, y)
            config.on_epoch(epoch, metrics)
        return Update(params=_learned(estimator), num_examples=len(y), metrics=metrics)

    def evaluate(self, params: Params, config: EvalConfig) -> Metrics:
        """Accuracy, and the loss where the estimator has probabilities; rmse and r2 for regressors."""
        if len(self.data.test) == 0:
            raise DataError("evaluation: there are no held-out examples")
        estimator = self._with(params, TrainConfig(round=config.round, parameters=config.parameters))
        return self._score(estimator, _rows(self.data.test.x), self.data.test.y)

    def predict(self, params: Params, inputs: Array) -> Array:
        """Class probabilities where the estimator has them, else its predictions."""
        estimator = self._with(params, TrainConfig(round=0))
        rows = _rows(np.asarray(inputs, dtype=self._example.dtype))
        answer: Array = np.asarray((_probabilities(estimator) or estimator.predict)(rows))
        return answer

    @property
    def _example(self) -> Array:
        """One row of features, which says how many there are and of which type."""
        split = self.data.train if self.context.role == "Trainer" else self.data.test
        row: Array = split.x[0].reshape(-1)
        return row

    def _fresh(self, config: TrainConfig) -> Any:
        """An estimator that has its arrays and knows all classes, also those that this client has no example of."""
        estimator = self.make_estimator(config)
        if not hasattr(estimator, "partial_fit"):
            raise TrainerError(f"{type(estimator).__name__} has no partial_fit, which every round needs")
        if "random_state" in estimator.get_params(deep=False):
            estimator.set_params(random_state=config.seed % 2**32)
        classes = self.data.num_classes
        like = self._example
        labels = np.zeros(1) if classes is None else np.arange(classes)
        known = {} if classes is None else {"classes": labels}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a batch larger than these few rows: they only make the arrays
            estimator.partial_fit(np.zeros((len(labels), like.size), like.dtype), labels, **known)
        return estimator

    def _with(self, params: Params, config: TrainConfig) -> Any:
        """An estimator that holds a model."""
        estimator = self._fresh(config)
        own = _learned(estimator)
        given, needed = ({name: array.shape for name, array in item.items()} for item in (params, own))
        if given != needed:
            raise TrainerError(f"the job's model has the arrays {given}, {type(estimator).__name__} needs {needed}")
        for name, array in _places(estimator).items():
            array[...] = params[name]
        return estimator

    def _score(self, estimator: Any, x: Array, y: Array) -> dict[str, float]:
        if self.data.num_classes is None:
            guesses = estimator.predict(x)
            squares = float(np.mean((guesses - y) ** 2))
            spread = float(np.mean((y - y.mean()) ** 2))
            found = {"loss": squares, "rmse": squares**0.5}
            return found | ({"r2": 1 - squares / spread} if spread > 0 else {})
        found = {"accuracy": float(np.mean(estimator.predict(x) == y))}
        if probabilities := _probabilities(estimator):
            right = probabilities(x)[np.arange(len(y)), y]
            found["loss"] = float(-np.mean(np.log(np.maximum(right, 1e-15))))
        return found


def _probabilities(estimator: Any) -> Any:
    """``predict_proba`` of an estimator, or ``None`` where its settings give it none."""
    return getattr(estimator, "predict_proba", None)


def _places(estimator: Any) -> dict[str, Array]:
    """The estimator's own arrays by name: what is written into them, it has learned."""
    if all(hasattr(estimator, name) for name in SINGLE):
        return {name: getattr(estimator, name) for name in SINGLE}
    if all(hasattr(estimator, name) for name in LAYERED):
        return {f"{name}{layer}": array for name in LAYERED for layer, array in enumerate(getattr(estimator, name))}
    raise TrainerError(
        f"{type(estimator).__name__} keeps what it learns neither in {' and '.join(SINGLE)} "
        f"nor in {' and '.join(LAYERED)}"
    )


def _learned(estimator: Any) -> Params:
    """Copies of the estimator's arrays."""
    return {name: np.array(array) for name, array in _places(estimator).items()}


def _rows(x: Array) -> Array:
    return x.reshape(len(x), -1)
