"""The few operations on files that durability depends on, in one place, so that tests can make each of them fail."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


class Disk:
    """Writes files so that after a crash each is there as a whole, or not at all."""

    def write_new(self, path: Path, blocks: Iterable[bytes | memoryview], *, mode: int = 0o666) -> None:
        """Write a file and make its content durable; its name is not, before the folder is (`sync_folder`).

        Args:
            path: The file.
            blocks: Its content.
            mode: Who may read and write it, less the umask.

        Raises:
            OSError: Disk full, read-only, or broken; the file is gone again.
        """
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        try:
            temporary.unlink(missing_ok=True)  # one of a crash would keep its mode
            with open(temporary, "wb", buffering=0, opener=partial(os.open, mode=mode)) as file:
                for block in blocks:
                    write_all(file.write, block)
                self.sync(file.fileno())
            self.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def sync(self, descriptor: int) -> None:
        """Make the content of a file durable."""
        os.fsync(descriptor)

    def rename(self, temporary: Path, path: Path) -> None:
        """Put a file in the place of another one."""
        temporary.replace(path)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        if os.name == "posix":  # Windows cannot, and does so by itself
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                self.sync(descriptor)
            finally:
                os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a file that nobody refers to any more."""
        path.unlink(missing_ok=True)


def write_all(write: Callable[[memoryview], int | None], block: bytes | memoryview) -> None:
    """Write a block to a raw file, which may take only a part of it at a time."""
    rest = memoryview(block)
    while rest:
        rest = rest[write(rest) or 0 :]
