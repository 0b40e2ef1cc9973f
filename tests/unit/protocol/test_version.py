"""Which peers are talked to."""

import pytest

from fedjob_protocol import PROTOCOL_VERSION, __version__
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.version import OLDEST_SUPPORTED, check_protocol


def test_one_version_back_is_supported():
    assert max(1, PROTOCOL_VERSION - 1) == OLDEST_SUPPORTED
    for version in range(OLDEST_SUPPORTED, PROTOCOL_VERSION + 1):
        assert check_protocol(str(version)) == version


def test_people_with_curl_say_nothing():
    assert check_protocol(None) == PROTOCOL_VERSION


@pytest.mark.parametrize(
    "header",
    ["", "0", str(PROTOCOL_VERSION + 1), "-1", "1.0", " 1", "1 ", "one", "\u0661", "1" * 7, "1" * 10_000, "0x1", "+1"],
)
def test_others_are_refused_with_what_they_said(header):
    with pytest.raises(Refusal) as refused:
        check_protocol(header)
    assert refused.value.word is Word.UNSUPPORTED_PROTOCOL
    assert "use images of the same release" in refused.value.detail


def test_the_version_of_the_distribution_is_known():
    assert __version__.count(".") >= 1
