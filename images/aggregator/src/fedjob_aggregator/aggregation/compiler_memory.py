"""Gives the memory of the compiler back: once the kernels are compiled, 50 MB of its code are of no use any more.

Half a model of 100 MB, that is. Only on Linux; elsewhere nothing happens. Called by `backends` after compiling.
"""

import ctypes
import logging
import sys
from pathlib import Path
from typing import Final

COMPILER_LIBRARY: Final = "libllvmlite"
MADV_DONTNEED: Final = 4

_log = logging.getLogger(__name__)


def release_compiler() -> None:
    """Unmap the pages of the compiler's program text; should it be needed again, the kernel reads them again.

    Only text that is mapped read-only and executable is touched: it has no changes of ours that could be lost.
    """
    if sys.platform != "linux":
        return
    try:
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        madvise = ctypes.CDLL(None, use_errno=True).madvise
    except (OSError, AttributeError) as error:
        _log.debug("the compiler's memory is kept: %s", error)
        return
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in mapped.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[1] == "r-xp" and COMPILER_LIBRARY in fields[5]:
            begin, end = (int(address, 16) for address in fields[0].split("-"))
            madvise(begin, end - begin, MADV_DONTNEED)
