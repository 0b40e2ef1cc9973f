"""A client as people write it for Flower: a network in PyTorch, a `NumPyClient`, a `client_fn`."""

import numpy as np
import torch
from flwr.client import Client, NumPyClient
from flwr.common import Context
from sklearn.datasets import load_digits
from torch import nn


def make_net(hidden: int) -> nn.Module:
    """Make a perceptron with BatchNorm."""
    return nn.Sequential(nn.Linear(64, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 10))


def load_part(number: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Read one client's digits, and those that are held out."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = torch.tensor(digits.data[order] / 16, dtype=torch.float32)
    y = torch.tensor(digits.target[order])
    return x[300:][number::count], y[300:][number::count], x[:300], y[:300]


class DigitsClient(NumPyClient):
    """Trains on its own digits."""

    def __init__(self, number: int, count: int, hidden: int) -> None:
        self.net = make_net(hidden)
        self.x, self.y, self.x_test, self.y_test = load_part(number, count)

    def get_parameters(self, config):
        """Return the network's tensors."""
        return [value.cpu().numpy() for value in self.net.state_dict().values()]

    def set_parameters(self, parameters):
        """Put tensors into the network."""
        state = {name: torch.tensor(value) for name, value in zip(self.net.state_dict(), parameters, strict=True)}
        self.net.load_state_dict(state, strict=True)

    def fit(self, parameters, config):
        """Train for some epochs."""
        self.set_parameters(parameters)
        optimizer = torch.optim.SGD(self.net.parameters(), lr=config["lr"], momentum=0.9)
        self.net.train()
        for _ in range(config["local_epochs"]):
            for rows in torch.randperm(len(self.y)).split(config["batch_size"]):
                if len(rows) > 1:  # BatchNorm needs two
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(self.net(self.x[rows]), self.y[rows]).backward()
                    optimizer.step()
        return self.get_parameters({}), len(self.y), {}

    def evaluate(self, parameters, config):
        """Measure on the held-out digits."""
        self.set_parameters(parameters)
        self.net.eval()
        with torch.no_grad():
            scores = self.net(self.x_test)
            loss = nn.functional.cross_entropy(scores, self.y_test).item()
            accuracy = (scores.argmax(1) == self.y_test).float().mean().item()
        return loss, len(self.y_test), {"accuracy": accuracy}


def client_fn(context: Context) -> Client:
    """Make the client of a node."""
    number, count = context.node_config["partition-id"], context.node_config["num-partitions"]
    return DigitsClient(number, count, context.run_config["hidden"]).to_client()
