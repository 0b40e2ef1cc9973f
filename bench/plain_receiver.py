"""The floor of an upload: a socket whose bytes are received into one block again and again, and dropped.

Each body comes with its length in eight bytes before it, and is answered with one byte once it is here.
"""

import os
import socket
from typing import Final

from fedjob_protocol.lifeline import hold_lifeline
from fedjob_protocol.process import announce, base_url, listen

BLOCK_BYTES: Final = 1 << 20


def receive(connection: socket.socket) -> None:
    """Receive bodies until the sender closes the connection."""
    block = memoryview(bytearray(BLOCK_BYTES))
    while length := connection.recv(8, socket.MSG_WAITALL):
        left = int.from_bytes(length, "little")
        while left:
            count = connection.recv_into(block, min(left, BLOCK_BYTES))
            if not count:
                return
            left -= count
        connection.sendall(b"\x01")


def main() -> None:
    """Serve one connection after the other until the parent is gone."""
    hold_lifeline(os.environ)
    listening = listen("127.0.0.1", 0)
    listening.setblocking(True)
    announce("plain-receiver", base_url(listening), "plain")
    while True:
        connection, _ = listening.accept()
        with connection:
            receive(connection)


if __name__ == "__main__":
    main()
