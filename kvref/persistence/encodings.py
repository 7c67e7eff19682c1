"""The compact forms of small collections: entries side by side in one string, with no pointers between them.

Interface:
  - entry(text)                 one entry of a listpack
  - listpack(entries)           a whole listpack
  - read_listpack(cursor)       the texts of a listpack
  - intset(numbers)             a whole intset
  - read_intset(cursor)         its members, as text

    listpack        bytes in all 4 | number of entries 2, 65535 for "not counted" | entries | FF
    entry           encoding | text, or nothing after a number | back length
    encoding        0xxxxxxx                    7-bit number, 0 to 127
                    10xxxxxx                    text, 6-bit length
                    110xxxxx xxxxxxxx           13-bit number; this and all longer ones are signed
                    1110xxxx xxxxxxxx           text, 12-bit length
                    11110000 and 4 bytes        text, 32-bit length; the low byte first, as in all that follow
                    11110001 and 2 bytes        16-bit number
                    11110010 and 3 bytes        24-bit number
                    11110011 and 4 bytes        32-bit number
                    11110100 and 8 bytes        64-bit number
    back length     bytes of encoding and text: 7 bits in each byte, the high ones first; all but the first are 1xxxxxxx

    intset          bytes of a member 4: 2, 4 or 8 | number of members 4 | members, signed, ascending

The back length is for those who walk from the end to the start. They read it backwards, up to the byte that is
0xxxxxxx. An entry tells nothing about another one; so none has to change because its neighbour does, as in the ziplists
of old (see legacy.py).

    >>> entry(b"hello").hex(" "), entry(b"-1").hex(" ")
    ('85 68 65 6c 6c 6f 06', 'df ff 02')

Redis: listpack.c (lpEncodeGetType, lpEncodeBacklen, lpValidateIntegrity), intset.c (intsetValidateIntegrity). Simpler
here: no walking and no changing; what has been read is Python objects, and equal texts of a listpack are one object.
That is for files made to hurt: a listpack of equal entries of two bytes, which LZF makes 88 times as short, becomes
four times as long again, by a pointer for each entry, and not thirty times, by an object for each. Redis keeps the
listpack as it is. Stricter: behind the end there is nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from kvref.numbers import parse_int
from kvref.persistence.cursor import Cursor

END: Final = 0xFF
NOT_COUNTED: Final = 0xFFFF                 # entries of a listpack
FRAME: Final = 4 + 2 + 1                    # bytes of a listpack without entries
WIDTHS: Final = {2: "h", 4: "i", 8: "q"}    # bytes of a member of an intset -> what `struct` calls them


# ---- the table of encodings, and what is made of it ----------------------------------------------

class Form(NamedTuple):
    """How numbers from `low` to `high` are written, or the lengths of texts: a row of the table above."""

    name: str
    first: int                              # the first byte, but for the bits of the number
    more: int                               # bytes of the number behind it
    low: int
    high: int
    is_text: bool = False

    def encoding(self, number: int) -> bytes:
        """Both limits belong to a power of two, so their distance is a mask of all bits that there are."""
        bits = number & self.high - self.low
        here, behind = bits >> 8 * self.more, bits & (1 << 8 * self.more) - 1
        return bytes([self.first | here]) + behind.to_bytes(self.more, "little")


TEXTS: Final = (
    Form("text, 6-bit length", 0x80, 0, 0, 63, True),
    Form("text, 12-bit length", 0xE0, 1, 0, 4095, True),
    Form("text, 32-bit length", 0xF0, 4, 0, 2**32 - 1, True))
NUMBERS: Final = (
    Form("7-bit number", 0x00, 0, 0, 127),
    Form("13-bit number", 0xC0, 1, -2**12, 2**12 - 1),
    Form("16-bit number", 0xF1, 2, -2**15, 2**15 - 1),
    Form("24-bit number", 0xF2, 3, -2**23, 2**23 - 1),
    Form("32-bit number", 0xF3, 4, -2**31, 2**31 - 1),
    Form("64-bit number", 0xF4, 8, -2**63, 2**63 - 1))
FORMS: Final = {form.first + bits: form for form in TEXTS + NUMBERS         # first byte -> form
                for bits in range(1 + (form.high - form.low >> 8 * form.more))}


def back_length(size: int) -> bytes:
    """Redis takes a byte more already for the last number that two, three or four bytes could hold."""
    more = sum(size >= limit for limit in (2**7, 2**14 - 1, 2**21 - 1, 2**28 - 1))
    return bytes([size >> 7 * more, *(size >> 7 * place & 127 | 128 for place in range(more - 1, -1, -1))])


BACK_LENGTHS: Final = [back_length(size) for size in range(128)]
SHORT_TEXTS: Final = [(TEXTS[0].encoding(size), BACK_LENGTHS[1 + size]) for size in range(1 + TEXTS[0].high)]


# ---- listpacks -----------------------------------------------------------------------------------

def entry(text: bytes) -> bytes:
    """With a number in it where the text is what Redis would write for one."""
    number = None if text[:1] > b"9" else parse_int(text)       # a glance is enough for most texts that are none
    if number is None and len(text) < len(SHORT_TEXTS):
        encoding, back = SHORT_TEXTS[len(text)]
        return encoding + text + back
    body = _encoding(len(text), TEXTS) + text if number is None else _encoding(number, NUMBERS)
    return body + (BACK_LENGTHS[len(body)] if len(body) < 128 else back_length(len(body)))


def _encoding(number: int, forms: tuple[Form, ...]) -> bytes:
    """In the first form that has room for the number; the last one has room for all."""
    for form in forms:
        if form.low <= number <= form.high:
            break
    return form.encoding(number)


def listpack(entries: list[bytes]) -> bytes:
    """`entries`: what `entry` has made."""
    body = b"".join(entries)
    return struct.pack("<IH", FRAME + len(body), min(len(entries), NOT_COUNTED)) + body + bytes([END])


def read_listpack(cursor: Cursor) -> Iterator[bytes]:
    """The texts, numbers too, as they come; equal ones are one object.

    The listpack is all that the cursor has left. Unreadable unless every byte is right.
    """
    there = cursor.left
    claimed, count = cursor.number(4, "bytes of the listpack"), cursor.number(2, "number of entries")
    if claimed != there:
        raise cursor.fail(f"the listpack claims {claimed} bytes, and there are {there}")
    found, seen = 0, dict[bytes, bytes]()
    take, begin, end, known = cursor.take, cursor.begin, cursor.end, seen.setdefault
    begin()
    while (byte := take(1, "encoding")[0]) != END:
        if byte not in FORMS:
            raise cursor.fail(f"an entry of the listpack has the impossible encoding {byte:#x}", cursor.offset - 1)
        name, first, more, low, high, is_text = FORMS[byte]
        number = byte - first
        if more:
            behind = take(more, "length" if is_text else "number")
            number = number << 8 * more | int.from_bytes(behind, "little")
        if is_text:
            text = take(number, "text")
            size = 1 + more + number
        else:
            text = b"%d" % (number if number <= high else number - (high - low + 1))
            size = 1 + more
        found += 1
        back = BACK_LENGTHS[size] if size < 128 else back_length(size)
        if take(len(back), "back length") != back:
            raise cursor.fail(f"the back length does not fit its entry of {size} bytes", cursor.offset - len(back))
        end(name, text)
        yield known(text, text)
        begin()
    end("end of the listpack")
    if cursor.left:
        raise cursor.fail(f"{cursor.left} bytes stand behind the end of the listpack")
    if count not in (found, NOT_COUNTED):
        raise cursor.fail(f"the listpack claims {count} entries, and there are {found}")


# ---- intsets -------------------------------------------------------------------------------------

def intset(numbers: list[int]) -> bytes:
    """`numbers`: at least one, of 64 bits, none twice, in any order."""
    low, high = min(numbers), max(numbers)
    width = next(width for width in WIDTHS if -1 << 8 * width - 1 <= low and high < 1 << 8 * width - 1)
    return struct.pack(f"<II{len(numbers)}{WIDTHS[width]}", width, len(numbers), *sorted(numbers))


def read_intset(cursor: Cursor) -> list[bytes]:
    """The members, as text. The intset is all that the cursor has left; Unreadable unless every byte is right."""
    width, count = cursor.number(4, "bytes of a member"), cursor.number(4, "number of members")
    if width not in WIDTHS:
        raise cursor.fail(f"the members of the intset have {width} bytes, which should be 2, 4 or 8", cursor.offset - 8)
    if not count or width * count != cursor.left:
        raise cursor.fail(f"the intset claims {count} members of {width} bytes, and there are {cursor.left} bytes")
    members = [cursor.number(width, "member", signed=True) for _ in range(count)]
    for place, (before, behind) in enumerate(pairwise(members), 1):
        if before >= behind:
            raise cursor.fail(f"the intset has {behind} behind {before}", cursor.offset - width * (count - place))
    return [b"%d" % number for number in members]
