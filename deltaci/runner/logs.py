"""How the runner's own log looks: one line an event on stderr, with run, job and attempt on each."""

import sys
from typing import TYPE_CHECKING, Any

from loguru import logger

if TYPE_CHECKING:
    from loguru import Record


def configure_logs(level: str = "INFO", sink: Any = None) -> None:
    """Send this process's log to stderr (or `sink`), replacing whatever was configured before."""
    logger.remove()
    # `diagnose` prints the values of variables into tracebacks: a token or a lease id would end up in the log.
    logger.add(
        sink if sink is not None else sys.stderr, level=level, format=_line_format, diagnose=False, backtrace=False
    )


def _line_format(record: "Record") -> str:
    ids = "".join(f" {key}={{extra[{key}]}}" for key in ("run", "job", "attempt") if key in record["extra"])
    return "{time:YYYY-MM-DDTHH:mm:ss.SSSZ} {level:<7}" + ids + " {message}\n{exception}"
