"""The rounds of ``mnist_20.py`` by Flower's server and FedAvg, with clients in PyTorch; prints the accuracies as JSON.

Runs in an environment with Flower, PyTorch and NumPy and nothing of ours: ``mnist_flower.py FOLDER``, where the folder
holds the images and their owners, the initial model, and the plan: participants and seeds of every round.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cnn_torch import Cnn, load
from flwr.common import (
    Code,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    ReconnectIns,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.server import Server
from flwr.server.strategy import FedAvg

TEST_ROWS = 500


class InProcess(ClientProxy):
    """A client that Flower's server calls directly: what it computes does not depend on the wire."""

    def __init__(self, index: int, x: torch.Tensor, y: torch.Tensor, plan: dict[str, Any]) -> None:
        super().__init__(str(index))
        self.index, self.x, self.y, self.plan = index, x, y, plan

    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None) -> FitRes:  # noqa: ARG002 - Flower's interface
        """One local training, in the order of batches of the plan."""
        net = Cnn(28)
        set_arrays(net, parameters_to_ndarrays(ins.parameters))
        seed = self.plan["seeds"][int(ins.config["round"]) - 1][self.index]
        order = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))).permutation(len(self.y))
        optimizer = torch.optim.SGD(net.parameters(), lr=self.plan["rate"])
        for begin in range(0, len(order), self.plan["batch"]):
            rows = torch.from_numpy(order[begin : begin + self.plan["batch"]])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(self.x[rows]), self.y[rows]).backward()
            optimizer.step()
        return FitRes(Status(Code.OK, ""), ndarrays_to_parameters(arrays(net)), len(self.y), {})

    def get_properties(self, ins: GetPropertiesIns, timeout: float | None, group_id: int | None) -> GetPropertiesRes:  # noqa: ARG002 - Flower's interface
        """Not asked for."""
        raise RuntimeError("this is not asked for")

    def get_parameters(self, ins: GetParametersIns, timeout: float | None, group_id: int | None) -> GetParametersRes:  # noqa: ARG002 - Flower's interface
        """Not asked for: the initial model is given."""
        raise RuntimeError("this is not asked for")

    def evaluate(self, ins: EvaluateIns, timeout: float | None, group_id: int | None) -> EvaluateRes:  # noqa: ARG002 - Flower's interface
        """Not asked for: the server evaluates."""
        raise RuntimeError("this is not asked for")

    def reconnect(self, ins: ReconnectIns, timeout: float | None, group_id: int | None) -> Any:  # noqa: ARG002 - Flower's interface
        """Nothing to end."""
        return None


class Planned(SimpleClientManager):
    """Chooses the participants of the plan."""

    def __init__(self, rounds: list[list[int]]) -> None:
        super().__init__()
        self.rounds = iter(rounds)

    def sample(self, num_clients: int, min_num_clients: int | None = None, criterion: Any = None) -> list[ClientProxy]:  # noqa: ARG002 - Flower's interface
        """Of the next round."""
        return [self.clients[str(index)] for index in next(self.rounds)]


def main() -> None:
    """Run all rounds."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(2)
    problem, plan = np.load(folder / "problem.npz"), json.loads((folder / "plan.json").read_text())
    x, y = images(problem["x_train"]), torch.from_numpy(problem["y_train"])
    manager = Planned(plan["rounds"])
    for index in range(int(problem["owners"].max()) + 1):
        own = torch.from_numpy(np.flatnonzero(problem["owners"] == index))
        manager.register(InProcess(index, x[own], y[own], plan))
    first = Cnn(28)
    load(first, dict(np.load(folder / "initial.npz")), 28)
    found: list[float] = []
    held_out = images(problem["x_test"]), torch.from_numpy(problem["y_test"])

    def evaluate(number: int, parameters: list[np.ndarray], _: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        net = Cnn(28)
        set_arrays(net, parameters)
        accuracy = accuracy_of(net, *held_out)
        if number > 0:
            found.append(accuracy)
        return 0.0, {"accuracy": accuracy}

    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_available_clients=1,
        evaluate_fn=evaluate,
        on_fit_config_fn=lambda number: {"round": number},
        initial_parameters=ndarrays_to_parameters(arrays(first)),
    )
    server = Server(client_manager=manager, strategy=strategy)
    server.set_max_workers(1)
    server.fit(num_rounds=len(plan["rounds"]), timeout=None)
    print(json.dumps(found))


def images(rows: np.ndarray) -> torch.Tensor:
    """Rows of pixels as PyTorch takes them."""
    return torch.from_numpy(rows.reshape(-1, 1, 28, 28))


def arrays(net: Cnn) -> list[np.ndarray]:
    """The weights, as Flower carries them."""
    return [value.detach().numpy().copy() for value in net.state_dict().values()]


def set_arrays(net: Cnn, values: list[np.ndarray]) -> None:
    """Put weights into a network."""
    net.load_state_dict(
        {name: torch.from_numpy(np.array(value)) for name, value in zip(net.state_dict(), values, strict=True)}
    )


def accuracy_of(net: Cnn, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of right answers."""
    with torch.no_grad():
        right = sum(
            int((net(x[begin : begin + TEST_ROWS]).argmax(1) == y[begin : begin + TEST_ROWS]).sum())
            for begin in range(0, len(y), TEST_ROWS)
        )
    return right / len(y)


if __name__ == "__main__":
    main()
