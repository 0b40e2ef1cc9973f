"""A Flower ``NumPyClient`` as a client, unchanged.

Beside your Flower code, three lines::

    from fedjob_client.flower import flower_trainer
    from my_app.client_app import client_fn     # or a NumPyClient class, or an instance

    MyTrainer = flower_trainer(client_fn)

and in the manifest ``trainer: my_module:MyTrainer``. The names below are those of Flower's ``NumPyClient`` (flower.ai,
"Flower framework", API reference): ``get_parameters``, ``fit``, ``evaluate``. Flower is not a dependency of this
package; your code brings it.

What the client is given as ``config``: ``server_round``, ``local_epochs`` (and ``epochs``), ``batch_size``,
``learning_rate`` (and ``lr``), ``seed``, under FedProx ``proximal_mu``, and ``training.parameters`` of the manifest. A
``client_fn`` that takes a context finds ``partition-id`` and ``num-partitions`` in ``context.node_config``, as in
Flower's simulations, and ``model.parameters`` in ``context.run_config``.

Arrays of a list have no names, so they are numbered. Float16 travels as float32 and is float16 again at the client.
Integer arrays (counters) stay at the client: it is handed its own again.
"""

import inspect
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from fedjob_client.errors import TrainerError
from fedjob_client.trainer import Array, ClientContext, EvalConfig, Metrics, Params, TrainConfig, Update

__all__ = ["flower_trainer"]

DIGITS: Final = 5
"""Of an array's number: names are sorted as texts, and have to stay in order."""


def flower_trainer(source: Any) -> Callable[[ClientContext], "FlowerTrainer"]:
    """Make a trainer of a ``NumPyClient``.

    Args: source: A class without arguments, an instance, or a ``client_fn`` that takes Flower's context, or the
        client's number as a text, and returns a ``NumPyClient`` or what its ``to_client()`` made of it.
    """

    def make(context: ClientContext) -> FlowerTrainer:
        _seed(context.seed)
        return FlowerTrainer(_numpy_client(source, context))

    return make


class FlowerTrainer:
    """A trainer around a ``NumPyClient``.

    Args:
        client: Has ``fit``, and ``evaluate`` and ``get_parameters`` where they are asked for.

    Raises:
        TrainerError: It has no ``fit``.
    """

    def __init__(self, client: Any) -> None:
        if not callable(getattr(client, "fit", None)):
            raise TrainerError(f"{type(client).__name__} is no NumPyClient: it has no method fit")
        self._client = client
        self._own: list[Array] | None = None
        """The client's arrays as it made them last, which say the types, and which integer arrays are taken from."""

    def init(self, seed: int) -> Params:
        """Ask the client for its parameters.

        They are what the client drew when it was made, unless it draws when it is asked.
        """
        _seed(seed)
        return self._shared(self._ask())

    def train(self, params: Params, config: TrainConfig) -> Update:
        """Call ``fit``."""
        _seed(config.seed)
        given = self._lists(params)
        started = [np.array(array) for array in given]
        answer = self._client.fit(given, _fit_config(config))
        trained, count, metrics = _three(answer, "fit", "parameters, number of examples, metrics")
        arrays = [np.asarray(array) for array in trained]
        self._check(arrays)
        self._own = arrays
        numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        config.on_epoch(config.epochs, numbers)
        after, before = self._shared(arrays), self._shared(started)
        delta = {name: after[name] - before[name] for name in after}
        return Update(delta=delta, num_examples=count, metrics=numbers)

    def evaluate(self, params: Params, config: EvalConfig) -> Metrics:
        """Call ``evaluate``; its loss is a metric like the others."""
        asked = {"server_round": config.round, **config.parameters}
        answer = self._client.evaluate(self._lists(params), asked)
        loss, _, metrics = _three(answer, "evaluate", "loss, number of examples, metrics")
        return {"loss": float(loss), **{k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}}

    def _ask(self) -> list[Array]:
        """The client's own parameters."""
        if self._own is None:
            if not callable(getattr(self._client, "get_parameters", None)):
                raise TrainerError(_NO_PARAMETERS.format(type(self._client).__name__))
            found = self._client.get_parameters({})
            if not isinstance(found, Sequence) or not found:
                raise TrainerError(_NO_PARAMETERS.format(type(self._client).__name__))
            self._own = [np.asarray(array) for array in found]
        return self._own

    def _shared(self, arrays: Sequence[Array]) -> Params:
        """What of a list is the job's: floating-point arrays by number."""
        return {
            f"{number:0{DIGITS}}": np.asarray(array, dtype=np.float64 if array.dtype == np.float64 else np.float32)
            for number, array in enumerate(arrays)
            if array.dtype.kind == "f"
        }

    def _lists(self, params: Params) -> list[Array]:
        """The list that the client expects: the job's arrays in its types, its own integers between them."""
        own = self._ask()
        expected = {name: array.shape for name, array in self._shared(own).items()}
        given = {name: array.shape for name, array in params.items()}
        if given != expected:
            raise TrainerError(f"the job's model has the arrays {given}, the client needs {expected}")
        return [
            params[f"{number:0{DIGITS}}"].astype(array.dtype) if array.dtype.kind == "f" else np.array(array)
            for number, array in enumerate(own)
        ]

    def _check(self, arrays: Sequence[Array]) -> None:
        own = [(array.shape, array.dtype.kind) for array in self._ask()]
        found = [(array.shape, array.dtype.kind) for array in arrays]
        if found != own:
            raise TrainerError(f"fit returned {len(found)} arrays {found[:3]} …, it was given {len(own)} {own[:3]} …")


_NO_PARAMETERS: Final = (
    "{} returns nothing from get_parameters, so its arrays and their types are not known; implement it: in Flower it "
    "is what gives a server its initial parameters"
)


def _seed(seed: int) -> None:
    """Seed what Flower's clients draw from, since nobody hands them a generator: the same job, the same model."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the generator that other people's code uses
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


def _fit_config(config: TrainConfig) -> dict[str, Any]:
    return {
        "server_round": config.round,
        "local_epochs": config.epochs,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "lr": config.learning_rate,
        "seed": config.seed,
        **({"proximal_mu": config.proximal_mu} if config.proximal_mu else {}),
        **config.parameters,
    }


def _three(answer: Any, method: str, wanted: str) -> tuple[Any, Any, Mapping[str, Any]]:
    if not isinstance(answer, tuple) or len(answer) != len(("value", "count", "metrics")):
        raise TrainerError(f"{method} returned {type(answer).__name__}; ({wanted}) is needed")
    value, count, metrics = answer
    if not isinstance(metrics, Mapping):
        raise TrainerError(f"{method} returned {type(metrics).__name__} as metrics; a dict is needed")
    return value, count, metrics


def _numpy_client(source: Any, context: ClientContext) -> Any:
    """The client itself, whatever it was given as."""
    if inspect.isclass(source):
        client = source()
    elif callable(getattr(source, "fit", None)):
        client = source
    else:
        client = source(_argument(source, context))
    # `to_client` wraps a NumPyClient into one that speaks in messages; the one inside is the one that is wanted.
    return getattr(client, "numpy_client", client)


def _argument(client_fn: Callable[..., Any], context: ClientContext) -> Any:
    """Flower's context; or the client's number as a text, where the function's parameter is called ``cid``."""
    if list(inspect.signature(client_fn).parameters)[:1] == ["cid"]:
        return str(context.index)
    from flwr.common import Context, RecordDict  # noqa: PLC0415 - brought by whoever has such a function

    part = context.data.partition
    node = {"partition-id": context.index, "num-partitions": part.count if part else 1}
    plain = {
        name: value for name, value in context.model.parameters.items() if isinstance(value, bool | int | float | str)
    }
    return Context(run_id=0, node_id=context.index, node_config=node, state=RecordDict(), run_config=plain)
