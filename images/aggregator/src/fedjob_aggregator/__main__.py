"""``fedjob-aggregator``: holds its lifeline, then imports what takes time."""

import os

from fedjob_protocol.lifeline import hold_lifeline


def main() -> None:
    """Run the command."""
    hold_lifeline(os.environ)
    from fedjob_aggregator.command import main as command  # noqa: PLC0415

    command()


if __name__ == "__main__":
    main()
