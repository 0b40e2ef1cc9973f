"""What a command line tells its user when it cannot go on."""

from typing import Final

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


class Failure(Exception):  # noqa: N818 - it is shown to people as it is
    """Ends the command with a message and an exit code.

    Args:
        message: The thing, what was seen, what to do.
        exit_code: 1 for what failed, 2 for what was asked wrongly.
    """

    def __init__(self, message: str, *, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
