"""What a scalar of YAML means, by the rules of kubectl: those of sigs.k8s.io/yaml, which follows its Go YAML reader.

They are neither YAML 1.1 nor 1.2: ``1e-3`` and ``0o10`` are numbers, ``y`` and ``on`` are booleans, ``12:30`` and
``2001-01-01`` are strings, and ``08`` is 8. `tests/data/yaml_scalars` holds what the original makes of some hundred
scalars; this module agrees with it on each.
"""

import base64
import binascii
import math
import re
import struct
from datetime import date
from types import MappingProxyType
from typing import Final

from fedjob_protocol.errors import quote

_YAML: Final = "tag:yaml.org,2002:"
STR: Final = f"{_YAML}str"
BOOL: Final = f"{_YAML}bool"
INT: Final = f"{_YAML}int"
FLOAT: Final = f"{_YAML}float"
NULL: Final = f"{_YAML}null"
TIMESTAMP: Final = f"{_YAML}timestamp"
BINARY: Final = f"{_YAML}binary"
MERGE: Final = f"{_YAML}merge"

Scalar = None | bool | int | float | str
"""What a scalar can mean. Floats may be infinite or NaN here: they are good for keys, not for values."""

_NAMED: Final = MappingProxyType(
    dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"], True)
    | dict.fromkeys(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"], False)
    | dict.fromkeys(["", "~", "null", "Null", "NULL"])
    | dict.fromkeys([".nan", ".NaN", ".NAN"], math.nan)
    | dict.fromkeys([".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"], math.inf)
    | dict.fromkeys(["-.inf", "-.Inf", "-.INF"], -math.inf)
)
_INTEGER: Final = re.compile(r"(?a:([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*)))")
_FLOAT: Final = re.compile(r"(?a:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)")
_DOT_FLOAT: Final = re.compile(r"(?a:\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+(?:_[0-9]+)*)?)")
_SIGN_AFTER_BINARY_PREFIX: Final = re.compile(r"(?a:0b([-+][01]+))")
_TIMESTAMP: Final = re.compile(
    r"(?a:([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})"
    r"(?:[Tt][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?(?:Z|[-+][0-9]{2}:[0-9]{2})"
    r"| [0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?)?)"
)
_LONGEST_DECIMAL: Final = 20
_INT64: Final = 2**63
_UINT64: Final = 2**64
_MOST_FLOAT32_DIGITS: Final = 9
_FIXED_NOTATION: Final = range(-4, 6)


class ScalarError(ValueError):
    """A scalar that does not mean what its tag says, or that JSON cannot hold."""


def resolve(text: str) -> Scalar:
    """Return what a plain scalar, one without quotes and tag, means."""
    if text in _NAMED:
        return _NAMED[text]
    if text[0] == ".":
        return _finite(text) if _DOT_FLOAT.fullmatch(text) else text
    if text[0] in "+-0123456789":
        return _number(text)
    return text


def resolve_tagged(tag: str, text: str) -> Scalar:
    """Return what a scalar with an explicit tag means; tags that are not YAML's own leave the text as it is.

    Args:
        tag: The tag in its long form, such as ``tag:yaml.org,2002:int``.
        text: The scalar's text, without its quotes.

    Raises:
        ScalarError: If the text is no such thing.
    """
    if tag == BINARY:
        return _decode(text)
    if tag not in (BOOL, INT, FLOAT, NULL, TIMESTAMP):
        return text
    if tag == TIMESTAMP and _is_timestamp(text):
        return text
    value = resolve(text)
    found = _tag_of(value)
    if found == tag:
        return value
    if tag == FLOAT and found == INT and isinstance(value, int) and value < _INT64:
        return float(value)
    raise ScalarError(f"{quote(text)} is not a !!{tag.removeprefix(_YAML)}")


def json_value(value: Scalar) -> Scalar:
    """Return a scalar as JSON has it once it has been written and read: a float without a fraction is an integer.

    Raises:
        ScalarError: If the number is infinite or NaN.
    """
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        raise ScalarError(f"{value} is not a number that JSON can hold")
    return int(value) if value.is_integer() and abs(value) < _INT64 else value


def json_key(value: Scalar) -> str:
    """Return a scalar as the key of a JSON object; floats are written with the precision of 32 bits.

    Raises:
        ScalarError: If the scalar is null, or an integer of more than 64 bits with sign.
    """
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() if value < _INT64:
            return str(value)
        case float():
            return _float32_text(value)
        case _:
            raise ScalarError(f"{'null' if value is None else value} cannot be a key; put it in quotes")


def _number(text: str) -> Scalar:
    plain = text.replace("_", "")
    integer = _integer(plain)
    if integer is not None:
        return integer
    if _FLOAT.fullmatch(plain):
        value = _finite(plain)
        return text if isinstance(value, str) else value
    # The original tries what follows 0b as a number of its own, sign and all.
    odd = _SIGN_AFTER_BINARY_PREFIX.fullmatch(plain)
    if odd is not None and -_INT64 <= int(odd[1], 2) < _INT64:
        return int(odd[1], 2)
    return text


def _integer(plain: str) -> int | None:
    """Return an integer that 64 bits can hold, with sign or without, and None for everything else."""
    match = _INTEGER.fullmatch(plain)
    if match is None:
        return None
    sign, hexadecimal, binary, octal, decimal = match.groups()
    if decimal is not None and len(decimal) > _LONGEST_DECIMAL:
        return None
    for digits, base in ((hexadecimal, 16), (binary, 2), (octal, 8), (decimal, 10)):
        if digits is not None:
            size = int(digits, base)
            value = -size if sign == "-" else size
            return value if -_INT64 <= value < (_INT64 if sign else _UINT64) else None
    return None


def _finite(text: str) -> float | str:
    """Return the number, or the text itself where the number is too large for a float."""
    value = float(text.replace("_", ""))
    return value if math.isfinite(value) else text


def _tag_of(value: Scalar) -> str:
    match value:
        case None:
            return NULL
        case bool():
            return BOOL
        case int():
            return INT
        case float():
            return FLOAT
        case str():
            return STR


def _decode(text: str) -> str:
    try:
        return base64.b64decode(re.sub(r"[\r\n]", "", text), validate=True).decode("utf-8", errors="replace")
    except (binascii.Error, ValueError):
        raise ScalarError("!!binary value is not base64") from None


def _is_timestamp(text: str) -> bool:
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return False
    try:
        date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return False
    return True


def _float32_text(value: float) -> str:
    """Write a float with the fewest digits that keep its 32-bit value, in Go's format g."""
    if math.isnan(value):
        return ".nan"
    try:
        (narrow,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        narrow = math.copysign(math.inf, value)
    if math.isinf(narrow):
        return ".inf" if narrow > 0 else "-.inf"
    shortest = next(text for text in _widening(narrow) if struct.pack("f", float(text)) == struct.pack("f", narrow))
    mantissa, exponent = shortest.split("e")
    if int(exponent) in _FIXED_NOTATION or narrow == 0:
        places = max(0, len(mantissa.lstrip("-").replace(".", "")) - 1 - int(exponent))
        return f"{float(shortest):.{places}f}"
    return f"{mantissa}e{exponent}"


def _widening(value: float) -> list[str]:
    return [f"{value:.{digits}e}" for digits in range(_MOST_FLOAT32_DIGITS)]
