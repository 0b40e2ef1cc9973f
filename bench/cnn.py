"""Trains the two-layer network on the CPU beside PyTorch, in turns: ``python bench/cnn.py``.

PyTorch is installed once into an environment of its own (``--environment``), by name: where the package index has CPU
wheels, name one (``--torch torch==2.13.0+cpu``), as the ordinary wheel brings gigabytes of CUDA. Both train the same
network from the same weights on the same images in the same order, each time in a fresh process: forward, backward and
the step of SGD, with the copy of each batch. That both found the same is checked by their losses.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from children import HERE
from cnn_problem import LEARNING_RATE, SIDE, WARM_UP, initial, order, problem
from machine import Others, describe, require_linux, wait_until_idle
from peers import environment_with, run_peer
from report import Check, Row, Section, write_json

GOAL: Final = 0.95
"""Of PyTorch's images per second in its default layout."""
LAYOUTS: Final = ("default", "channels_last")
RUN_SECONDS: Final = 300.0
COMPARED: Final = 8
"""First steps whose losses have to agree: later, rounding in another order has grown."""
LARGEST_DIFFERENCE: Final = 1e-4
"""Between the losses of a step."""


def main() -> None:
    """Measure, print, and write JSON where asked to."""
    if sys.argv[1:2] == ["once"]:
        print(json.dumps(_once(*map(int, sys.argv[2:5]))))
        return
    require_linux()
    options = _options()
    machine = describe()
    python = environment_with(options.environment, [options.torch, "numpy"])
    sections = []
    for threads in options.threads:
        if not options.busy:
            wait_until_idle()
        began, others = time.perf_counter(), Others()
        section, version = measure(options, python, threads)
        machine["torch"] = version
        section = dataclasses.replace(section, seconds=time.perf_counter() - began, others=others.cores())
        sections.append(section)
        print(f"\n{section.text()}", flush=True)
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    if options.json:
        write_json(options.json, machine, sections)


def measure(options: argparse.Namespace, python: Path, threads: int) -> tuple[Section, str]:
    """Images per second of ours and of PyTorch in both layouts, in turns; and per second of processor time.

    The latter says something on a busy machine, too; with several threads it counts those that wait by spinning.
    """
    sizes = [str(options.images), str(options.batch), str(threads)]
    programs = {"fedjob client's cnn": (Path(sys.executable), ["cnn.py", "once", *sizes])}
    programs |= {f"PyTorch, {layout} layout": (python, ["cnn_torch.py", *sizes, layout]) for layout in LAYOUTS}
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    for _ in range(options.repeats):
        for name, (interpreter, (script, *arguments)) in programs.items():
            # A client of ours gives its libraries one thread each, and shares the work among threads of its own.
            counts = threads if interpreter == python else 1
            text = run_peer(interpreter, [str(HERE / script), *arguments], timeout=RUN_SECONDS, threads=counts)
            answers[name].append(json.loads(text.splitlines()[-1]))
    ours, *theirs = answers.values()
    for peer in theirs:
        _check_equal(ours[0]["losses"], peer[0]["losses"])
    rows, checks = [], []
    for key, unit in (("rate", "img/s"), ("cpu_rate", "img/cpu-s")):
        found = [
            Row(name=name, unit=unit, values=tuple(each[key] for each in given)) for name, given in answers.items()
        ]
        rows += found
        checks += [
            Check(name=f"{unit}, of {row.name}", value=found[0].median / row.median, unit="x", goal=goal, at_most=False)
            for row, goal in zip(found[1:], (GOAL, 0.0), strict=True)
        ]
    title = f"Two-layer CNN, {SIDE} x {SIDE}, batches of {options.batch}, {threads} threads: images trained per second"
    section = Section(name=f"cnn-{threads}", title=title, rows=tuple(rows), checks=tuple(checks))
    return section, theirs[0][0]["version"]


def _check_equal(ours: list[float], theirs: list[float]) -> None:
    difference = float(np.abs(np.array(ours[:COMPARED]) - np.array(theirs[:COMPARED])).max())
    if len(ours) != len(theirs) or difference > LARGEST_DIFFERENCE:
        sys.exit(f"bench: the losses of the two differ by {difference}, so their times cannot be compared")


def _once(images: int, batch: int, threads: int) -> dict[str, Any]:
    """Train once with the client's own parts."""
    from fedjob_client.models.cnn_compiled import CompiledCnn  # noqa: PLC0415
    from fedjob_client.models.optimizers import Optimizer  # noqa: PLC0415
    from fedjob_client.models.team import Team  # noqa: PLC0415
    from fedjob_client.trainer import TrainConfig  # noqa: PLC0415
    from fedjob_protocol.builtin import CnnParameters  # noqa: PLC0415 - the other program shall not import it

    pixels, labels = problem(images)
    model = CompiledCnn(CnnParameters(), Team(threads))
    optimizer = Optimizer(initial(SIDE), model, TrainConfig(round=1, learning_rate=LEARNING_RATE))
    losses = []
    began, used = time.perf_counter(), time.process_time()
    for step, rows in enumerate(order(images, batch)):
        if step == WARM_UP:
            began, used = time.perf_counter(), time.process_time()
        sums = model.gradient(optimizer.params, pixels[rows], labels[rows], optimizer.gradient)
        optimizer.step()
        losses.append(sums.loss / batch)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
    measured = (len(losses) - WARM_UP) * batch
    return {"rate": measured / seconds, "cpu_rate": measured / cpu_seconds, "losses": losses}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the network beside PyTorch; leave the machine idle.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of both [default: 1 2]")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each, in turns [default: 7]")
    parser.add_argument("--batch", type=int, default=50, help="images in a step [default: 50]")
    parser.add_argument("--images", type=int, default=4000, help="images of a run [default: 4000]")
    parser.add_argument("--torch", default="torch", metavar="REQUIREMENT", help="what pip installs [default: torch]")
    parser.add_argument(
        "--environment", type=Path, default=HERE.parent / ".cache" / "torch", metavar="DIR",
        help="environment with PyTorch [default: .cache/torch in the repository]",
    )  # fmt: skip
    parser.add_argument("--busy", action="store_true", help="do not wait until the machine is idle")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values to FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
