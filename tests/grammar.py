"""What the comparison with a real Redis may say: every command on data, its arguments, and how two replies compare.

    ZADD key [NX|XX|GT|LT]* [CH] [INCR] (score member)+
    SMEMBERS key                                                ~ unordered

Words in capitals are sent as they are, in some spelling; words in small letters stand for something drawn from POOLS
or WRITERS. `[a]` may be missing, `(a b)` belongs together, `a|b` is one of them; behind a word or a bracket, `+` means
once or several times, `*` perhaps never. Behind `~` stands how the replies are compared, where they need not be the
same bytes: see `CHECKS` in tests/differences.py.

Of every twenty commands one is spoilt: a word is dropped, said twice, inserted or replaced.

Everything is drawn from an object with `random`'s methods: a `random.Random` in the long form, Hypothesis's in the
test, so that both speak one language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Sequence
from functools import cache
from random import Random
from typing import NamedTuple

# --- the universe: so small that commands meet each other's keys and members -----------------------------------------

KEYS = {"string": b"s1 s2 s3".split(), "list": b"l1 l2".split(), "hash": b"h1 h2".split(), "set": b"t1 t2 t3".split(),
        "zset": b"z1 z2 z3".split()}
ODD_KEYS = (b"none", b"", b"\0\xff\r\n")
ANY = [key for keys in KEYS.values() for key in keys]
ELSE = [*ANY, *ODD_KEYS]
DATABASES = (0, 1, 15)

LETTERS = b"a b c d e 1 2 3".split()
SMALL = tuple(b"%d" % number for number in range(-6, 7))
INTEGERS = b"0 1 2 -1 3 5 10 -7 100 9999 10000 2147483647 -2147483649".split()
LARGEST = b"9223372036854775807 -9223372036854775807 -9223372036854775808 9223372036854775806".split()
NO_INTEGERS = (b"", b" 1", b"1 ", b"+1", b"01", b"-0", b"1.0", b"1e3", b"0x10", b"x", b"1\0", b"9223372036854775808",
               b"-9223372036854775809", b"99999999999999999999", "\u0661".encode())
FLOATS = b"0 -0 1 2 3 -1 1.5 0.1 -2.5 .5 5. 1e3 1e17 3.0000000000000004 0.30000000000000004 12345678901234567".split()
ODD_FLOATS = (*b"1e308 -1e308 1.7976931348623157e308 1e-300 inf -inf +inf Infinity 0x1p3 0x1.8p1 nan -nan".split(),
              *b"nan(1) 1e400 -1e400 1e-400 1e x 1_000 1,5 123456789012345678901234567890".split(),
              b"", b" 1", b"1 ", b"1\0")
ODD = (*b"-1 10 01 9223372036854775807 9223372036854775808 1.5 ab abc 5e-324".split(), b"", b"\0\xff\r\n", b"a b",
       "\u00e9".encode(), *(b"y" * size for size in (44, 45, 64, 65, 1024)))    # where encodings change
SCORES = b"1 2 3 4 5".split()

# What is usual, and what is odd: of twenty words three are odd.
POOLS: dict[str, tuple[Sequence[bytes], Sequence[bytes]]] = {
    "any": (ANY, ODD_KEYS),
    "member": (LETTERS, ODD),
    "value": ([*LETTERS, *INTEGERS, *LARGEST[:3], *FLOATS], ODD),
    "integer": ([*INTEGERS, *LARGEST], NO_INTEGERS),
    "number": ([*INTEGERS, *LARGEST], [text for text in NO_INTEGERS if text != b"-0"]),     # -0 is to be a score only
    "float": ([*FLOATS, *INTEGERS], ODD_FLOATS),
    "index": (SMALL, [*LARGEST, *NO_INTEGERS]),
    "rank": (SMALL, [*LARGEST[:2], *NO_INTEGERS]),      # minus 2**63 overflows in Redis 7.0
    "count": (SMALL[6:], [b"-1", b"100", *LARGEST, *NO_INTEGERS]),
    "draws": (SMALL, [*b"30 -30 200 9223372036854775808 x".split(), *LARGEST[::2]]),     # the others would be obeyed
    "score": ([*SCORES * 2, *FLOATS], ODD_FLOATS),
    "score-bound": ([*SCORES, *b"(1 (2 (3 -inf +inf -inf +inf".split(), *FLOATS],
                    [*ODD_FLOATS, *b"(inf (-inf ( (x [1".split()]),
    "lexicon": ((b"x1", b"x2"), (b"plain",)),   # sorted sets of one score, or else BYLEX means nothing; and a string
    "lex-bound": (b"- + - + [a (a [b (b [c (d [1".split(), [*b"[ ( (zz a ++ -a".split(), b"[\xff", b""]),
    # A gap of a few kB, or too much: not what would be allowed and huge
    "offset": (SMALL[6:], [*b"20 100 3000 -1 536870912".split(), LARGEST[0], *NO_INTEGERS]),
    "bit-offset": ([*SMALL[6:], *b"7 8 9 15 16 30 100".split()],
                   [*b"8000 -1 4294967296".split(), LARGEST[0], *NO_INTEGERS]),
    "bit": (b"0 1".split(), b"2 -1 x 01".split()),
    "database": (b"0 0 0 0 0 1 1 15".split(), b"16 -1 x 4294967296 99999999999999999999".split()),
    "instant": (b"4102444800 32503680000".split(),
                b"0 1 -1 1000000000 9223372036854775807 9223372036854775 x 1.5".split()),
    "instant-ms": (b"4102444800000 32503680000000".split(),
                   b"0 1 -1 1000000000 9223372036854775807 -9223372036854775808 x".split()),
    "pattern": (b"* ? a* *1 [st]1 [^z]* [a-c] h?".split(), [*b"\\* [ [] [a *y* *** s1".split(), b"", b"*\xff*"]),
    "cursor": ([b"0"], [*b"1 5 18446744073709551615 18446744073709551616 -1 x".split(), b"", b" 0", b"0 "]),
    "limit": (b"2 3 10 200".split(), b"0 512".split()),      # where encodings change
    "type": (b"string list hash set zset".split(), b"STRING stream x".split()),
}
LASTING = (2_000_000, 50_000_000, 7_000_050_000)    # of no consequence while the test runs, as seconds and as ms
NO_TTLS = (*b"0 -1 -5000000 9223372036854775807 -9223372036854775808 9223372036854775 x 1.5".split(), b"")
SPOILERS = (*b"x NX xx GT COUNT limit WITHSCORES WITHVALUES MATCH (1 nan [a".split(), b"", b"\0")

# --- the language ----------------------------------------------------------------------------------------------------

# Section: (how often, where `key` is at home, its lines)
TABLE = {
    "strings": (50, "string", """
        APPEND key value
        DECR key
        DECRBY key integer
        GET key
        GETDEL key
        GETEX key [EX ttl|PX ttl|EXAT instant|PXAT instant-ms|PERSIST]
        GETEX key [EX ttl|PX ttl|PERSIST]*
        GETRANGE key index index
        GETSET key value
        INCR key
        INCRBY key integer
        INCRBYFLOAT key float
        MGET key any*
        MSET (key value)+
        MSETNX (key value)+
        PSETEX key ttl value
        SET key value
        SET key value [NX|XX] [GET] [EX ttl|PX ttl|EXAT instant|PXAT instant-ms|KEEPTTL]
        SET key value [NX|XX|GET|KEEPTTL|EX ttl|PX ttl]*
        SETEX key ttl value
        SETNX key value
        SETRANGE key offset value
        STRLEN key
        SUBSTR key index index
    """),
    "bitmaps": (20, "string", """
        BITCOUNT key [index index [BYTE|BIT]]
        BITOP (AND|OR|XOR) key key+
        BITOP NOT key key
        BITOP (AND|OR|XOR|NOT|NAND) key any*
        BITPOS key bit [index [index [BYTE|BIT]]]
        GETBIT key bit-offset
        SETBIT key bit-offset bit
    """),
    "lists": (50, "list", """
        LINDEX key index
        LINSERT key (BEFORE|AFTER) member member
        LLEN key
        LMOVE key key (LEFT|RIGHT) (LEFT|RIGHT)
        LMPOP counted-keys (LEFT|RIGHT) [COUNT count]
        LPOP key [count]
        LPOS key member [RANK rank|COUNT count|MAXLEN count]*
        LPUSH key member+
        LPUSHX key member+
        LRANGE key index index
        LRANGE key 0 -1
        LREM key index member
        LSET key index member
        LTRIM key index index
        RPOP key [count]
        RPOPLPUSH key key
        RPUSH key member+
        RPUSH key (float|value)+
        RPUSHX key member+
    """),
    "hashes": (50, "hash", """
        HDEL key member+
        HEXISTS key member
        HGET key member
        HGETALL key                                             ~ listed pairs
        HINCRBY key member integer
        HINCRBYFLOAT key member float
        HKEYS key                                               ~ listed
        HLEN key
        HMGET key member+
        HMSET key (member value)+
        HRANDFIELD key [draws]                                  ~ drawn from HGETALL key
        HRANDFIELD key draws WITHVALUES                         ~ drawn from HGETALL key
        HSCAN key cursor [MATCH pattern|COUNT count]*           ~ iterated
        HSET key (member value)+
        HSET key member integer
        HSETNX key member value
        HSTRLEN key member
        HVALS key                                               ~ listed
    """),
    "sets": (50, "set", """
        SADD key member+
        SADD key number+
        SCARD key
        SDIFF key+                                              ~ unordered
        SDIFFSTORE key key+
        SINTER key+                                             ~ unordered
        SINTERCARD counted-keys [LIMIT count]*
        SINTERSTORE key key+
        SISMEMBER key member
        SMEMBERS key                                            ~ unordered
        SMISMEMBER key member+
        SMOVE key key member
        SPOP key [count]                                        ~ popped
        SRANDMEMBER key [draws]                                 ~ drawn from SMEMBERS key
        SREM key member+
        SSCAN key cursor [MATCH pattern|COUNT count]*           ~ iterated
        SUNION key+                                             ~ unordered
        SUNIONSTORE key key+
    """),
    "sorted sets": (80, "zset", """
        ZADD key (score member)+
        ZADD key [NX|XX|GT|LT|CH] (score member)+
        ZADD key [NX|XX|GT|LT]* [CH] [INCR] (score member)+
        ZADD key [XX|GT|LT] INCR score member
        ZADD lexicon (0 member)+
        ZADD lexicon [CH] (0 member)+
        ZCARD key
        ZCOUNT key score-bound score-bound
        ZINCRBY key float member
        ZLEXCOUNT lexicon lex-bound lex-bound
        ZMPOP counted-keys (MIN|MAX) [COUNT count]
        ZMSCORE key member+
        ZPOPMAX key [count]
        ZPOPMIN key [count]
        ZRANDMEMBER key [draws]                                 ~ drawn from ZRANGE key 0 -1 WITHSCORES
        ZRANDMEMBER key draws WITHSCORES                        ~ drawn from ZRANGE key 0 -1 WITHSCORES
        ZRANGE key index index [REV] [WITHSCORES]
        ZRANGE key 0 -1 WITHSCORES
        ZRANGE key score-bound score-bound BYSCORE [REV] [LIMIT index index] [WITHSCORES]
        ZRANGE lexicon lex-bound lex-bound BYLEX [REV] [LIMIT index index]
        ZRANGE lexicon index lex-bound [BYLEX|BYSCORE|REV|LIMIT index index|WITHSCORES]*
        ZRANGEBYLEX lexicon lex-bound lex-bound [LIMIT index index]
        ZRANGEBYSCORE key score-bound score-bound [WITHSCORES|LIMIT index index]*
        ZRANGESTORE key key index index [REV]
        ZRANGESTORE key key score-bound score-bound BYSCORE [REV|LIMIT index index]*
        ZRANGESTORE key lexicon lex-bound lex-bound BYLEX [REV|LIMIT index index|WITHSCORES]*
        ZRANK key member
        ZREM key member+
        ZREMRANGEBYLEX lexicon lex-bound lex-bound
        ZREMRANGEBYRANK key index index
        ZREMRANGEBYSCORE key score-bound score-bound
        ZREVRANGE key index index [WITHSCORES]
        ZREVRANGEBYLEX lexicon lex-bound lex-bound [LIMIT index index]
        ZREVRANGEBYSCORE key score-bound score-bound [WITHSCORES|LIMIT index index]*
        ZREVRANK key member
        ZSCAN key cursor [MATCH pattern|COUNT count]*           ~ iterated
        ZSCORE key member
    """),
    "several sorted sets": (20, "zset", """
        ZDIFF counted-sets [WITHSCORES]
        ZDIFFSTORE key counted-sets
        ZINTER counted-sets [WEIGHTS float+|AGGREGATE (SUM|MIN|MAX)|WITHSCORES]*
        ZINTER weighted-sets [AGGREGATE (SUM|MIN|MAX)] [WITHSCORES]
        ZINTERCARD counted-sets [LIMIT count]*
        ZINTERSTORE key counted-sets [AGGREGATE (SUM|MIN|MAX)]
        ZINTERSTORE key weighted-sets [AGGREGATE (SUM|MIN|MAX)]
        ZUNION counted-sets [WEIGHTS float+|AGGREGATE (SUM|MIN|MAX)|WITHSCORES]*
        ZUNION weighted-sets [AGGREGATE (SUM|MIN|MAX)] WITHSCORES
        ZUNIONSTORE key counted-sets [AGGREGATE (SUM|MIN|MAX)]
        ZUNIONSTORE key weighted-sets [AGGREGATE (SUM|MIN|MAX)]
    """),
    "keys": (30, "", """
        COPY key key [REPLACE]
        DEL key+
        DEL lexicon
        EXISTS key+
        KEYS pattern                                            ~ unordered
        OBJECT FREQ key
        OBJECT IDLETIME key                                     ~ within 100
        RANDOMKEY                                               ~ drawn from SCAN 0 COUNT 100000
        RENAME key key
        RENAMENX key key
        SCAN cursor [MATCH pattern|COUNT count|TYPE type]*      ~ iterated
        TOUCH key+
        TYPE key
        UNLINK key+
    """),
    "sorting": (10, "", """
        SORT (list|set|zset) [LIMIT index index] [ASC|DESC] [ALPHA]  ~ sorted
        SORT (list|set|zset) [LIMIT index index] [DESC] [ALPHA] STORE key ~ sorted
        SORT (list|zset|set) BY nosort [LIMIT index index] [ASC|DESC|ALPHA] ~ sorted by nosort
        SORT (list|zset|set) BY nosort [DESC] STORE key         ~ sorted
        SORT key [LIMIT index index|ASC|DESC|ALPHA|STORE key]*  ~ sorted
        SORT_RO key [LIMIT index index|ASC|DESC|ALPHA]*         ~ sorted
        SORT_RO key [STORE key]                                 ~ sorted
    """),
    "deadlines": (20, "", """
        EXPIRE key ttl [NX|XX|GT|LT]*
        EXPIREAT key instant [NX|XX|GT|LT]*
        EXPIRETIME key                                          ~ within 5
        PERSIST key
        PEXPIRE key ttl [NX|XX|GT|LT]*
        PEXPIREAT key instant-ms [NX|XX|GT|LT]*
        PEXPIRETIME key                                         ~ within 5000
        PTTL key                                                ~ within 5000
        TTL key                                                 ~ within 5
    """),
    "databases": (10, "", """
        COPY key key [DB database|REPLACE]*
        DBSIZE
        MOVE key database
        SELECT database
        SELECT 0
        SWAPDB database database
    """),
    "filling": (40, "", """
        HSET hash pairs
        MSET s1 value s2 integer s3 float
        RPUSH list letters
        RPUSH list digits
        SADD set letters
        SADD set digits
        ZADD zset pairs
        ZADD zset pairs
        ZADD lexicon zero-letters
    """),
    "large values": (2, "", """
        HSET hash many-pairs
        RPUSH list many
        SADD set many
        SADD set many-integers
        ZADD zset many-pairs
    """),
    "flushing": (1, "", """
        FLUSHALL [ASYNC|SYNC|x]
        FLUSHDB [ASYNC|SYNC|x]
        SET plain value
        SET plain value
    """),
}


# The first command of an example may be this one. Later it would not change the encoding of what is there.
LIMITS = "CONFIG SET hash-max-listpack-entries limit hash-max-listpack-value limit " \
         "zset-max-listpack-entries limit zset-max-listpack-value limit set-max-intset-entries limit"


class Command(NamedTuple):
    """What is sent, and how the replies are to be compared."""

    words: list[bytes]
    check: str = "same"

    @property
    def name(self) -> str:
        return self.words[0].decode("latin-1").upper()


class Author:
    """Writes commands. The same `random`, the same commands."""

    def __init__(self, random: Random, available: frozenset[str], only: Container[str] | None = None) -> None:
        """`available`: the commands that may be used, named as in the command table; `only`: of these sections."""
        self.random = random
        self.words: list[bytes] = []            # of the command being written
        self.spelling = 0
        self.home: Sequence[bytes] = ANY        # of its section
        self.written = 0
        self.sections = {name: section for name in TABLE if (only is None or name in only)
                         and (section := _section(name, available)).lines}
        self.names = [name for name, section in self.sections.items() for _ in range(section.weight)]

    def opening(self) -> list[Command]:
        """What an example begins with: three times in ten other limits of small encodings."""
        if self.random.random() < 0.7:
            return []
        self.words, self.spelling = [], 0
        compile_line(LIMITS)(self)
        return [Command(self.words)]

    def command(self) -> Command:
        random = self.random
        chosen = self.sections[random.choice(self.names)]
        write, check = random.choice(chosen.lines)
        self.words, self.home, self.written = [], chosen.home, self.written + 1
        self.spelling = random.choice(SPELLINGS)
        write(self)
        if random.random() > 0.95:
            self._spoil()
        return Command(self.words, check)

    def _spoil(self) -> None:
        words, random = self.words, self.random
        at = random.randrange(1, len(words) + 1)
        kind = random.choice(("drop", "drop", "repeat", "insert", "replace"))
        if kind == "drop" and at < len(words):
            del words[at]
        elif kind == "repeat":
            words.insert(at, words[at - 1])
        elif kind == "replace":
            words[at:at + 1] = [random.choice(SPOILERS)]
        else:
            words.insert(at, random.choice(SPOILERS))


# --- from a line to a function that writes such a command ------------------------------------------------------------

Writer = Callable[[Author], None]
SPELLINGS = (0, 0, 0, 0, 1, 1, 2)                       # ZADD, zadd, zADD
LITERALS = {"plain", "nosort", "s1", "s2", "s3"}        # small letters that stand for themselves
TOKEN = re.compile(r"[\[\]()|+*]|[^\s\[\]()|+*]+")


class Section(NamedTuple):
    """A section of TABLE, ready to be used."""

    weight: int
    home: Sequence[bytes]
    lines: tuple[tuple[Writer, str], ...]


def lines() -> Iterator[tuple[str, str, str]]:
    """Every line of TABLE: section, grammar, check."""
    for name, (_, _, text) in TABLE.items():
        for line in text.strip().split("\n"):
            grammar, _, check = line.partition("~")
            yield name, grammar.strip(), check.strip() or "same"


def command_name(grammar: str) -> str:
    """As the command table calls it: "zadd", "object|freq"."""
    first, second = [*grammar.lower().split(), ""][:2]
    return f"{first}|{second}" if first == "object" else first


@cache
def _section(name: str, available: frozenset[str]) -> Section:
    weight, home, _ = TABLE[name]
    return Section(weight, KEYS.get(home, ANY), tuple(
        (compile_line(grammar), check) for section, grammar, check in lines()
        if section == name and command_name(grammar) in available))


def compile_line(grammar: str) -> Writer:
    tokens = [*TOKEN.findall(grammar), ")"]
    return _alternatives(tokens, ")")


def _alternatives(tokens: list[str], end: str) -> Writer:
    """Sequences with | between them, up to `end`."""
    sequences: list[list[Writer]] = [[]]
    while (token := tokens.pop(0)) != end:
        if token == "|":
            sequences.append([])
        elif token == "[":
            sequences[-1].append(_repeated(_alternatives(tokens, "]"), tokens, (0, 0, 1)))
        elif token == "(":
            sequences[-1].append(_repeated(_alternatives(tokens, ")"), tokens, None))
        else:
            sequences[-1].append(_repeated(_word(token), tokens, None))
    choices = tuple(_sequence(sequence) for sequence in sequences)
    if len(choices) == 1:
        return choices[0]
    return lambda author: author.random.choice(choices)(author)


def _sequence(writers: list[Writer]) -> Writer:
    def write(author: Author) -> None:
        for each in writers:
            each(author)
    return write


def _repeated(once: Writer, tokens: list[str], times: tuple[int, ...] | None) -> Writer:
    """With the + or * that follows, if one does. `times`: how often without one; None: just once."""
    follows = tokens[0]
    if follows in "+*":
        tokens.pop(0)
        times = (1, 1, 2, 3) if follows == "+" else (0, 0, 1, 1, 1, 2, 3)
    if times is None:
        return once
    choices = times

    def write(author: Author) -> None:
        for _ in range(author.random.choice(choices)):
            once(author)
    return write


def _word(token: str) -> Writer:
    if token in POOLS:
        return _mostly(*POOLS[token])
    if token in KEYS:
        return _mostly(KEYS[token], KEYS[token])
    if token in WRITERS:
        return WRITERS[token]
    if token.islower() and len(token) > 1 and token not in LITERALS and "-max-" not in token:
        raise ValueError(f"nothing is known of {token!r}")
    forms = (token.encode(), token.lower().encode(), (token[:1].lower() + token[1:]).encode())
    return lambda author: author.words.append(forms[author.spelling])


# --- words that know more than a pool --------------------------------------------------------------------------------

def _mostly(usual: Sequence[bytes], odd: Sequence[bytes]) -> Writer:
    return lambda author: author.words.append(author.random.choice(usual if author.random.random() < 0.85 else odd))


def _key(author: Author) -> None:
    _mostly(author.home, ELSE)(author)


def _counted(key: Writer, weight: Writer | None = None) -> Writer:
    """How many keys follow, and so many keys; one of ten times with a wrong number. Then a weight for each."""
    def write(author: Author) -> None:
        random = author.random
        count = random.choice((1, 2, 2, 3))
        wrong = random.choice((b"0", b"-1", b"x", LARGEST[0], b"%d" % (count + 1)))
        author.words.append(b"%d" % count if random.random() < 0.9 else wrong)
        for _ in range(count):
            key(author)
        if weight:
            author.words.append(b"WEIGHTS")
            for _ in range(count):
                weight(author)
    return write


def _ttl(author: Author) -> None:
    """Never the same twice in an example: which of two equal ones ends later would be a matter of milliseconds."""
    random = author.random
    lasting = b"%d" % (random.choice(LASTING) + 100_000 * author.written)
    author.words.append(lasting if random.random() < 0.7 else random.choice(NO_TTLS))


def _many(form: str) -> Writer:
    """More than a small encoding holds."""
    templates = [template.encode() for template in form.split()]

    def write(author: Author) -> None:
        start = author.random.choice((0, 0, 100))
        count = author.random.choice((50, 128, 129, 200, 513))
        author.words += [template % number for number in range(start, start + count) for template in templates]
    return write


def _some(*columns: Sequence[bytes]) -> Writer:
    """Three to eight of a few rows, in order or backwards."""
    rows = list(zip(*columns))

    def write(author: Author) -> None:
        chosen = rows[author.random.choice((0, 1, 2)):][::author.random.choice((1, 1, -1, 2))]
        author.words += [word for row in chosen for word in row]
    return write


SETS = KEYS["zset"] + KEYS["set"]
DIGITS = b"3 1 2 10 -5 7 1 2".split()

WRITERS: dict[str, Writer] = {
    "letters": _some(LETTERS),
    "digits": _some(DIGITS),
    "pairs": _some(DIGITS, LETTERS),
    "zero-letters": _some([b"0"] * len(LETTERS), LETTERS),
    "key": _key,
    "counted-keys": _counted(_key),
    "counted-sets": _counted(_mostly(SETS, ELSE)),
    "weighted-sets": _counted(_mostly(SETS, ELSE), _mostly(*POOLS["float"])),
    "ttl": _ttl,
    "many": _many("m%d"),
    "many-integers": _many("%d"),
    "many-pairs": _many("%d m%d"),
}
