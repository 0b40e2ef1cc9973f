"""The plugin's command line.

python -m fake_gpus run --count 2                     advertises two GPUs
python -m fake_gpus set --count 3 --unhealthy gpu-0   changes what there is
python -m fake_gpus claims                            prepares the device that a claim was given
"""

import argparse
import signal
from pathlib import Path

from fake_gpus import wire
from fake_gpus.devices import Devices


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="fake_gpus")
    parser.add_argument("what", choices=["run", "set", "claims"])
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--unhealthy", nargs="*", default=[])
    parser.add_argument("--refuses", action="store_true")
    parser.add_argument("--resource", default="nvidia.com/gpu")
    parser.add_argument("--file", type=Path, default=Path("/tmp/devices.json"))
    parser.add_argument("--folder", type=Path, default=Path(wire.FOLDER))
    options = parser.parse_args()
    if options.what == "claims":
        from fake_gpus.claims import Claims  # noqa: PLC0415 - the other commands need no claims

        claims = Claims()
        signal.signal(signal.SIGTERM, lambda *_: claims.stop())
        claims.run()
        return
    Devices(options.count, options.unhealthy, options.refuses).write(options.file)
    if options.what == "run":
        from fake_gpus.plugin import Plugin  # noqa: PLC0415 - the other command needs no gRPC

        plugin = Plugin(options.resource, options.file, options.folder)
        signal.signal(signal.SIGTERM, lambda *_: plugin.stop())
        plugin.run()


main()
