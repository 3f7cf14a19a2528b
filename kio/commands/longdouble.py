"""Numbers with 64 bits of mantissa, as INCRBYFLOAT has always counted: read, added and written without the hardware.

A number is a Fraction that such a float can hold. Reading and adding round to the nearest one, ties to the even
mantissa; writing gives at most 17 digits behind the point, and no zeros at the end. So the text is the same on every
machine, and that which clients know: 0.1 + 0.2 is 0.3.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

MANTISSA_BITS: Final = 64
#: The value of the highest exponent's unit bit is 2**EXPONENT_MAX; of the lowest bit of all, 2**EXPONENT_MIN.
EXPONENT_MAX: Final = 16_383
EXPONENT_MIN: Final = -16_445
DIGITS: Final = 17
#: Longer text is no number.
TEXT_BYTES_MAX: Final = 5 * 1024 - 1
_DECIMAL: Final = re.compile(rb"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?)0*([0-9]+))?")
_HEXADECIMAL: Final = re.compile(rb"([+-]?)0[xX]([0-9a-fA-F]*)(?:\.([0-9a-fA-F]*))?(?:[pP]([+-]?)0*([0-9]+))?")
_INFINITY: Final = re.compile(rb"([+-]?)inf(?:inity)?", re.IGNORECASE)
#: Where the exponent has more digits, the number is too large or too small, whatever its own (TEXT_BYTES_MAX at most).
_EXPONENT_DIGITS_MAX: Final = 5


class Infinite(ArithmeticError):
    """Raised when a number is too large to be one."""


def parse(text: bytes) -> Fraction | None:
    """The number that `text` says, or None where it says none.

    Raises:
        Infinite: when the text says infinity; a number that is merely too large is none.
    """
    if not 0 < len(text) <= TEXT_BYTES_MAX:
        return None
    if _INFINITY.fullmatch(text):
        raise Infinite
    for pattern, base, step in ((_DECIMAL, 10, 10), (_HEXADECIMAL, 16, 2)):
        match = pattern.fullmatch(text)
        if match is None:
            continue
        sign, whole, behind, exponent_sign, exponent_digits = match.groups()
        behind = behind or b""
        if not whole and not behind:
            return None
        # A Decimal has no bound on the digits it converts.
        digits = int(Decimal((whole + behind).decode())) if base == 10 else int(whole + behind, base)
        if digits == 0:
            return Fraction(0)
        exponent_digits = exponent_digits or b"0"
        if len(exponent_digits) > _EXPONENT_DIGITS_MAX:
            return None
        exponent = -int(exponent_digits) if exponent_sign == b"-" else int(exponent_digits)
        number = Fraction(digits) * Fraction(step) ** exponent / base ** len(behind)
        try:
            number = rounded(-number if sign == b"-" else number)
        except Infinite:
            return None
        # What is too small to be told from 0 is refused.
        return number or None
    return None


def rounded(number: Fraction) -> Fraction:
    """The nearest number that 64 bits of mantissa hold.

    Raises:
        Infinite: when it is beyond the largest.
    """
    if not number:
        return number
    # 2**(top - 1) <= |number| < 2**(top + 1)
    top = abs(number.numerator).bit_length() - number.denominator.bit_length()
    lowest = max(top - MANTISSA_BITS, EXPONENT_MIN)
    if abs(number) >= Fraction(2) ** (lowest + MANTISSA_BITS):
        lowest += 1
    unit = Fraction(2) ** lowest
    nearest = round(number / unit) * unit
    if abs(nearest) >= Fraction(2) ** (EXPONENT_MAX + 1):
        raise Infinite
    return nearest


def text_of(number: Fraction) -> bytes:
    """The number in decimals: at most 17 of them behind the point, no zero at the end."""
    scaled = round(abs(number) * 10**DIGITS)
    whole, behind = divmod(scaled, 10**DIGITS)
    text = f"{Decimal(whole)}.{behind:0{DIGITS}}".rstrip("0").rstrip(".")
    return (f"-{text}" if number < 0 and scaled else text).encode()
