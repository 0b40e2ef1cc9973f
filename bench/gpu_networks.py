"""The two-layer network on a GPU: the client's training beside a loop in plain PyTorch, over the same images.

Both have the examples on the device and PyTorch's own settings, and neither asks for a result before the end of an
epoch, so the plain loop is the most favourable one that people write. Needs PyTorch in the same environment.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from cnn_problem import LEARNING_RATE, SIDE, initial, problem
from cnn_torch import Cnn, load

from fedjob_client.cuda.networks import GpuNetwork
from fedjob_client.data.dataset import Split
from fedjob_client.models import cnn
from fedjob_client.trainer import TrainConfig
from fedjob_protocol.builtin import CnnParameters

BATCHES: Final = (50, 500)
IMAGES: Final = 20_000
Epoch = Callable[[], float]
"""Trains once over all images from where it is; returns the mean loss, when everything has been computed."""


def ours(images: int, batch: int, device: str) -> Epoch:
    """The client's training, as a round calls it: parameters come from the host and go back to it."""
    pixels, labels = problem(images)
    network = GpuNetwork(cnn.Cnn(CnnParameters()), Split(x=pixels, y=labels), device=device)
    params = initial(SIDE)

    def epoch() -> float:
        nonlocal params
        config = TrainConfig(round=1, seed=1, batch_size=batch, learning_rate=LEARNING_RATE)
        params, metrics = network.train(params, config)
        return metrics["loss"]

    return epoch


def plain(images: int, batch: int, device: str) -> Epoch:
    """What people write."""
    pixels, labels = problem(images)
    x, y = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).to(device), torch.from_numpy(labels).to(device)
    net = Cnn(SIDE)
    load(net, initial(SIDE), SIDE)
    net.to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)

    def epoch() -> float:
        # The order that the client has with this seed, so that the two can be compared.
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(1)))
        total: Any = torch.zeros((), device=device)
        for rows in torch.from_numpy(generator.permutation(images)).to(device).split(batch):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        return float(total.item()) / images

    return epoch
