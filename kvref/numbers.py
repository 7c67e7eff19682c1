"""Numbers as Redis reads and writes them: strict integers, doubles, and C's long double.

Interface:
  - parse_int(text)            a 64-bit integer in its one canonical form, or None
  - parse_double(text)         a double as strtod reads it, never NaN, or None
  - strtod(text)               the same as it reads it without care for errors
  - format_double(x)           17 significant digits: scores and other doubles in replies
  - parse_long_double(text)    what INCRBYFLOAT computes with, or None
  - add_long_doubles(a, b)     the sum, rounded once, as the x87 unit rounds it
  - format_long_double(x)      17 decimals without trailing zeros

Python has no long double. Here it is a pair of integers that fits the 80-bit format of x86, so that the
replies of INCRBYFLOAT equal Redis's to the last digit: 0.1 + 0.2 is 0.3 there, where doubles give
0.30000000000000004.

Redis: string2ll, string2ld, string2d and ld2string in util.c; addReplyDouble in networking.c.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final, NamedTuple

INT64_MIN: Final = -2**63
INT64_MAX: Final = 2**63 - 1
UINT64_MAX: Final = 2**64 - 1


def parse_int(text: bytes) -> int | None:
    """The integer, if `text` is how Redis would write it: no blanks, no plus, no leading zero, 64 bits."""
    try:
        number = int(text) if len(text) <= 20 else None
    except ValueError:
        return None
    if number is None or not INT64_MIN <= number <= INT64_MAX or b"%d" % number != text:
        return None
    return number


# ---- doubles -----------------------------------------------------------------------------------

# What strtod and strtold accept, but for NaN and blanks before it. Groups: sign; decimal mantissa and
# exponent; hexadecimal mantissa and exponent (of two); infinity.
_FLOAT: Final = re.compile(
    rb"([+-]?)(?:(\d+\.?\d*|\.\d+)(?:e([+-]?\d+))?"
    rb"|0x([0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p([+-]?\d+))?"
    rb"|(inf(?:inity)?))", re.IGNORECASE)
_PLAIN: Final = re.compile(rb"-?\d{1,15}(?:\.\d{1,20})?").fullmatch     # most doubles: quickly seen, never out of range


def strtod(text: bytes) -> float | None:
    """What C's strtod reads where nobody asks for errors: blanks may come first, a zero byte ends the text, nothing
    at all is 0, what is too large is inf, and what is too small 0. None for NaN and for other text."""
    text = text.partition(b"\0")[0]
    found = _FLOAT.fullmatch(text.lstrip())
    return _double(found) if found else None if text else 0.0


def _double(found: re.Match[bytes]) -> float:
    try:
        return float.fromhex(found[0].decode()) if found[4] else float(found[0])
    except OverflowError:
        return -math.inf if found[1] == b"-" else math.inf


def parse_double(text: bytes) -> float | None:
    """The nearest double. None for NaN, for other text, and for what overflows or vanishes (ERANGE)."""
    if _PLAIN(text):
        return float(text)
    found = _FLOAT.fullmatch(text)
    if found is None:
        return None
    _, decimal, _, hexadecimal, _, infinity = found.groups()
    number = _double(found)
    overflows = math.isinf(number) and not infinity
    vanishes = number == 0 and (decimal or hexadecimal).strip(b"0.")
    return None if overflows or vanishes else number


def format_double(x: float) -> bytes:
    """C's %.17g: every double has its own text, and 0.1 is 0.10000000000000001."""
    return b"%.17g" % x


# ---- long doubles ------------------------------------------------------------------------------

MANTISSA_BITS: Final = 64
MIN_EXPONENT: Final = -16445            # 2 ** -16445 is the smallest one above zero
MAX_EXPONENT: Final = 16384             # 2 ** 16384 is too large: from here on it is infinity
LONGEST: Final = 5 * 1024               # texts from this length on are no long doubles: MAX_LONG_DOUBLE_CHARS


class LongDouble(NamedTuple):
    """mantissa * 2 ** exponent, with at most 64 bits of mantissa."""

    mantissa: int
    exponent: int

    @property
    def finite(self) -> bool:
        return self.mantissa.bit_length() + self.exponent <= MAX_EXPONENT


ZERO: Final = LongDouble(0, 0)
INFINITY: Final = LongDouble(1, MAX_EXPONENT)       # nobody asks for its sign


def parse_long_double(text: bytes) -> LongDouble | None:
    """The nearest long double. None for NaN, for other text, and for what overflows or vanishes (ERANGE)."""
    found = _FLOAT.fullmatch(text) if len(text) < LONGEST else None
    if found is None:
        return None
    sign, decimal, ten_power, hexadecimal, two_power, infinity = found.groups()
    if infinity:
        return INFINITY
    whole, _, fraction = (decimal or hexadecimal).partition(b".")
    power = _long_int(ten_power or two_power or b"0")
    if decimal:
        digits, base, power = _long_int(whole + fraction), 10, power - len(fraction)
    else:
        digits, base, power = int(whole + fraction, 16), 2, power - 4 * len(fraction)
    return _power_of(-digits if sign == b"-" else digits, base, power)


def add_long_doubles(a: LongDouble, b: LongDouble) -> LongDouble:
    """The sum, not `finite` when it overflows or one of the two is infinite."""
    if not (a.finite and b.finite):
        return INFINITY
    low = min(a.exponent, b.exponent)
    return _nearest((a.mantissa << a.exponent - low) + (b.mantissa << b.exponent - low), 1, low)


def format_long_double(x: LongDouble) -> bytes:
    """C's %.17Lf without the trailing zeros; -0 is 0."""
    units = _divide(x.mantissa * 10**17, 1, -x.exponent)
    digits = str(Decimal(abs(units))).zfill(18)         # str(int) refuses more than 4300 digits
    whole, fraction = digits[:-17], digits[-17:].rstrip("0")
    return (("-" if units < 0 else "") + whole + ("." + fraction if fraction else "")).encode()


def _long_int(digits: bytes) -> int:
    """int() refuses more than 4300 digits, Decimal does not."""
    return int(digits) if len(digits) < 4300 else int(Decimal(digits.decode()))


def _power_of(digits: int, base: int, power: int) -> LongDouble | None:
    """digits * base ** power, rounded; None when it overflows or vanishes."""
    if digits == 0:
        return ZERO
    bits = digits.bit_length() + (power if base == 2 else power * 3322 // 1000)
    if abs(bits) > 20_000:              # far out of range: 1e999999999 is not worth computing
        return None
    number = _nearest(digits * base**power, 1) if power >= 0 else _nearest(digits, base**-power)
    return number if number.finite and number.mantissa else None


def _nearest(numerator: int, denominator: int, power: int = 0) -> LongDouble:
    """The long double nearest to numerator / denominator * 2 ** power."""
    size = numerator.bit_length() - denominator.bit_length()    # the quotient has so many bits, or one more
    for shift in (size - MANTISSA_BITS, size - MANTISSA_BITS + 1):
        shift = max(shift, MIN_EXPONENT - power)
        mantissa = _divide(numerator, denominator, shift)
        if mantissa.bit_length() <= MANTISSA_BITS:
            break
    return LongDouble(mantissa, shift + power)


def _divide(numerator: int, denominator: int, shift: int) -> int:
    """numerator / (denominator * 2 ** shift), rounded to the nearest integer, ties to the even one."""
    if shift < 0:
        numerator <<= -shift
    else:
        denominator <<= shift
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2))
