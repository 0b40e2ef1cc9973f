"""Who may call ``/v1``: with a job's token, or with the one that a client was given when it registered itself."""

from dataclasses import dataclass

from fedjob_protocol.errors import Refusal, Word


@dataclass(slots=True)
class Access:
    """What ``/v1`` wants in its header; changes when the client registers."""

    token: str | None
    """``None`` wants none."""
    is_closed: bool = False
    """Whether nobody may call: a client that has yet to register does not know who its server is."""

    def check_open(self) -> None:
        """Refuse while it is closed.

        Raises:
            Refusal: ``unavailable``.
        """
        if self.is_closed:
            raise Refusal(
                Word.UNAVAILABLE,
                "this client knows no server that may call it: it has not registered with one that drives jobs",
            )
