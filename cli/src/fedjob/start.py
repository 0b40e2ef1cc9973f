"""``fedjob init``: a commented manifest to begin with."""

from pathlib import Path

from fedjob.failure import EXIT_USAGE, Failure
from fedjob.init_template import manifest_template
from fedjob.progress import say


def init(file: Path) -> None:
    """Write the template, never over something that is there.

    Raises:
        Failure: The file exists or cannot be written.
    """
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(manifest_template())
    except FileExistsError:
        raise Failure(f"{file} exists already; name another file", exit_code=EXIT_USAGE) from None
    except OSError as error:
        raise Failure(f"{file}: {error.strerror or error}") from error
    say(f"wrote {file}; run it with: fedjob run {file}")
