"""Files in the published forms of CIFAR-10, with pixels of our own."""

import io
import struct
import tarfile
from pathlib import Path

import numpy as np

PIXELS = 3072
NAMES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def some_records(records: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels as stored, and labels; every class is a brightness of its own, so that it can be learned."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 10, size=records).astype(np.uint8)
    noise = generator.integers(0, 26, size=(records, PIXELS), dtype=np.uint8)
    return noise + labels[:, np.newaxis] * np.uint8(24), labels


def binary(records: int, seed: int) -> bytes:
    """A file of the binary version."""
    pixels, labels = some_records(records, seed)
    return np.column_stack([labels, pixels]).tobytes()


def text(value: bytes) -> bytes:
    """Python 2's string in protocol 2."""
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


def pickled(records: int, seed: int, *, data: bytes | None = None, head: bytes = b"", kind: bytes = b"u1") -> bytes:
    """A file of the Python version, instruction by instruction as Python 2 with NumPy wrote it."""
    pixels, labels = some_records(records, seed)
    content = pixels.tobytes() if data is None else data
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\x09" + text(b"b") + b"\x87Rq\x0b"
        b"(K\x01" + b"J" + struct.pack("<i", records) + b"M\x00\x0c\x86q\x0c"
        b"cnumpy\ndtype\nq\x0d" + text(kind) + b"K\x00K\x01\x87Rq\x0e(K\x03" + text(b"|") + b"NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(content) + b"tb"
    )
    return (
        b"\x80\x02}q\x01(" + head + text(b"batch_label") + text(b"training batch 1 of 5") + text(b"labels") + b"]q\x05("
        + b"".join(b"K" + bytes([label]) for label in labels)
        + b"e" + text(b"data") + array + text(b"filenames") + b"]q\x0f(" + text(b"a.png") * records + b"eu."
    )  # fmt: skip


def write_folder(folder: Path, records: int, *, version: str = "binary") -> Path:
    """The six files, unpacked."""
    make, suffix = (binary, ".bin") if version == "binary" else (pickled, "")
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(NAMES):
        (folder / f"{name}{suffix}").write_bytes(make(records, seed))
    return folder


def write_archive(path: Path, folder: Path, name: str) -> Path:
    """The files of a folder as an archive whose folder has that name."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for file in sorted(folder.iterdir()):
            member = tarfile.TarInfo(f"{name}/{file.name}")
            member.size = file.stat().st_size
            archive.addfile(member, io.BytesIO(file.read_bytes()))
    return path
