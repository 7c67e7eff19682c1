"""LZF: what stood there before is not written again, but pointed at.

Interface:
  - compress(data)              at least 4 bytes shorter, or None
  - decompress(data, size)      None where the bytes are damaged
  - LZF_GAIN                    bytes that one compressed byte can become at most

    000nnnnn and n + 1 bytes            literals: these bytes
    nnnooooo oooooooo                   a reference: n + 2 bytes from o + 1 bytes back; n from 1 to 6
    111ooooo nnnnnnnn oooooooo          the same with n + 9 bytes

To read this there is one way, to write it many: how hard does one look for what stood there before? Here a table of
65,536 slots knows where the three bytes of each slot stood last: one place, not all. Other bytes that go by the
same slot push it out, and of all the bytes behind a reference only the last two places are noted. A file should be as
long as Redis makes it, so each of these economies is as it is there, and the bytes are the same.

    >>> compress(b"a rose is a rose is a rose is a rose").hex(" ")      # 11 literals, 23 bytes from 10 back, 2 literals
    '0a 61 20 72 6f 73 65 20 69 73 20 61 e0 0e 09 01 73 65'

Redis: lzf_c.c and lzf_d.c (liblzf by Marc Lehmann, with VERY_FAST), rdbSaveLzfStringObject in rdb.c. Simpler here:
liblzf gives up as soon as there is no room, here that is decided at the end, with the same outcome.
"""

from __future__ import annotations

from typing import Final

LITERAL_MAX: Final = 32                 # literals in one piece
DISTANCE_MAX: Final = 8192
MATCH_MAX: Final = 264                  # bytes that one reference stands for
LZF_GAIN: Final = MATCH_MAX // 3        # such a reference takes three

BLOCK: Final = 512                      # bytes: what is shorter is counted first; so many slots are computed at once
FACTORS: Final = 256 << 64 | (1 - 5 * 256) % 2**16 << 32 | -5 % 2**16


def compress(data: bytes) -> bytes | None:
    """None where Redis would store the bytes as they are. (It does not even try with 20 or less; that is the caller's.)

    A reference saves no more bytes than there are threes in it that stood there before. 7 must be saved: 4, and 3 of
    room, and one before each of two rows of literals, less the 2 bytes that are still to come when that is decided. The
    threes of a short string are quickly counted, and most often that is the end.
    """
    end = len(data)
    if end <= BLOCK and len({*zip(data, data[1:], data[2:])}) > end - 2 - 7:
        return None
    slots, last_place = _slots(data), dict[int, int]()
    out, literals, at = bytearray(), 0, 0
    while at < end - 2:
        slot = slots[at]
        place = last_place.get(slot, 0)
        last_place[slot] = at
        # Place 0 can stand for none, as Redis never points at the start of the data either.
        if not place or at - place > DISTANCE_MAX or data[place:place + 3] != data[at:at + 3]:
            at += 1
            continue
        # A match stops 2 bytes before the end, but liblzf compares 16 bytes before it looks whether that is reached.
        left, size, back = end - at, 3, at - place - 1
        stop = min(left - 2, MATCH_MAX) if left > 20 else 19 if left > 18 else left - 2
        while size < stop and data[place + size] == data[at + size]:
            size += 1
        if literals < at:
            _put_literals(out, data[literals:at])
        if size < 9:
            out += (size - 2 << 13 | back).to_bytes(2, "big")
        else:
            out += bytes((0xE0 | back >> 8, size - 9, back & 255))
        literals = at = at + size
        if at < end - 2:
            last_place[slots[at - 2]], last_place[slots[at - 1]] = at - 2, at - 1
    # Redis asks for room for a row of literals, however short, and 3 bytes more, whether they come or not.
    if len(out) + 1 + (at - literals) * 33 // 32 + 3 > end - 4:
        return None
    _put_literals(out, data[literals:])
    return bytes(out)


def _slots(data: bytes) -> memoryview:
    """The slots of all threes: of a, b and c it is 256 a + b - 5 (256 b + c), the low 16 bits.

    A long int, with a byte in each lane of 32 bits, is multiplied once by the three factors, which stand in lanes, too.
    So each lane of the product is a sum of three bytes, every one with its own factor.
    """
    slots = bytearray()
    for start in range(0, len(data) - 2, BLOCK):
        block = data[start:start + BLOCK + 2]
        lanes = int.from_bytes(block.decode("latin-1").encode("utf-32-le"), "little") * FACTORS
        slots += memoryview(lanes.to_bytes(4 * len(block) + 8, "little")).cast("H")[4:2 * len(block):2].tobytes()
    return memoryview(slots).cast("H")


def _put_literals(out: bytearray, literals: bytes) -> None:
    for start in range(0, len(literals), LITERAL_MAX):
        piece = literals[start:start + LITERAL_MAX]
        out.append(len(piece) - 1)
        out += piece


def decompress(data: bytes, size: int) -> bytes | None:
    """None if it is not exactly `size` bytes that come out, or a reference leads before the start."""
    out, at, end = bytearray(), 0, len(data)
    data += b"\0\0"                     # what is cut off in the middle of a reference goes on past the end
    while at < end and len(out) <= size:
        first = data[at]
        if first < LITERAL_MAX:
            at += first + 2
            out += data[at - first - 1:at]
            continue
        count = (first >> 5) + 2
        if count == 9:
            at += 1
            count += data[at]
        back = (first << 8 & 0x1F00 | data[at + 1]) + 1
        at += 2
        if back > len(out):
            return None
        piece = out[len(out) - back:len(out) - back + count]
        # A reference that runs into what it writes itself repeats it.
        out += piece if back >= count else (piece * (count // back + 1))[:count]
    return bytes(out) if at == end and len(out) == size else None
