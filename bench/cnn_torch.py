"""The network of `fedjob_client.models.cnn` in PyTorch, trained on the same images in the same order; prints JSON.

Runs in an environment that has PyTorch and NumPy and nothing of ours: ``cnn_torch.py IMAGES BATCH THREADS LAYOUT``.
"""

import json
import sys
import time

import numpy as np
import torch
from cnn_problem import LEARNING_RATE, SIDE, WARM_UP, initial, order, problem


class Cnn(torch.nn.Module):
    """As McMahan et al. describe it."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 32, 5, padding=2)
        self.second = torch.nn.Conv2d(32, 64, 5, padding=2)
        self.hidden = torch.nn.Linear((side // 4) ** 2 * 64, 512)
        self.last = torch.nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores ``(n, 10)``."""
        x = torch.nn.functional.max_pool2d(torch.relu(self.first(x)), 2)
        x = torch.nn.functional.max_pool2d(torch.relu(self.second(x)), 2)
        return self.last(torch.relu(self.hidden(x.flatten(1))))


def main() -> None:
    """Train, and print images per second and the loss of every step."""
    images, batch, threads, layout = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(threads)
    pixels, labels = problem(images)
    x = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    y = torch.from_numpy(labels)
    net = Cnn(SIDE)
    load(net, initial(SIDE), SIDE)
    if layout == "channels_last":
        x, net = x.to(memory_format=torch.channels_last), net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
    losses = []
    began, used = time.perf_counter(), time.process_time()
    for step, rows in enumerate(order(images, batch)):
        if step == WARM_UP:
            began, used = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        chosen = torch.from_numpy(rows)
        loss = torch.nn.functional.cross_entropy(net(x[chosen]), y[chosen])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
    measured = (len(losses) - WARM_UP) * batch
    rates = {"rate": measured / seconds, "cpu_rate": measured / cpu_seconds}
    print(json.dumps({**rates, "losses": losses, "version": torch.__version__}))


def load(net: Cnn, params: dict[str, np.ndarray], side: int) -> None:
    """Put weights of ours into the network, in PyTorch's order of axes."""
    flat = params["w3"].reshape(side // 4, side // 4, 64, 512).transpose(3, 2, 0, 1).reshape(512, -1)
    state = {
        "first.weight": params["w1"].transpose(3, 2, 0, 1),
        "first.bias": params["b1"],
        "second.weight": params["w2"].transpose(3, 2, 0, 1),
        "second.bias": params["b2"],
        "hidden.weight": flat,
        "hidden.bias": params["b3"],
        "last.weight": params["w4"].T,
        "last.bias": params["b4"],
    }
    net.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})


if __name__ == "__main__":
    main()
