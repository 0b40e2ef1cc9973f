"""How the operator logs: lines of text for people, or of JSON for machines, on standard error."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

from typing_extensions import override

TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_QUIET: Final = ("kopf", "aiohttp", "kubernetes", "asyncio", "urllib3")
"""Libraries whose chatter is shown at level DEBUG only."""


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logs(level: str, *, as_json: bool) -> None:
    """Send the log to standard error.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        as_json: Whether each line is a JSON object.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else logging.Formatter(TEXT))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    if level != "DEBUG":
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
        # It says at each start that it leaves signals to us, as it should.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
