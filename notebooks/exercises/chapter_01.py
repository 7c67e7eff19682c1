"""Chapter 01, what a key-value store is: the judges of its exercises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvref.command_table import Command
from kvref.lab.judging import Wrong, exercise, expect
from kvref.server import Server
from kvref.sim import Caller, ReplyError, World

NOT_AN_INTEGER = "ERR value is not an integer or out of range"
SALES = (("SELL seats 2", 1), ("SELL seats 2", 2), ("SELL seats 2", None), ("SELL seats 1", None), ("GET seats", b"2"),
         ("SET seats 1 EX 9", "OK"), ("SELL seats 5", 2), ("TTL seats", 9), ("SELL seats many", NOT_AN_INTEGER),
         ("SET text x", "OK"), ("SELL text 5", NOT_AN_INTEGER), ("LPUSH list x", 1),
         ("SELL list 5", "WRONGTYPE Operation against a key holding the wrong kind of value"))


def start() -> tuple[World, Server, Caller, Caller]:
    world = World(seed=1)
    return world, world.start(), world.connect("alice"), world.connect("bob")


def require(holds: object, complaint: str) -> None:
    if not holds:
        raise Wrong(complaint)


@exercise("01-1", "What does a client know of a value that it has read a moment ago?",
          "Reading, adding and writing must be one request.", "Section 6 has the command. Its reply is the new number.")
def likes(like: Callable[..., Any]) -> None:
    """Against: between two of my commands nobody comes in."""
    _, _, alice, bob = start()
    expect(like, alice, "cat", wants=1)
    expect(like, alice, "dog", wants=1)
    require(alice("GET", "likes:cat") == b"1", f"One like, and GET likes:cat answers {alice('GET', 'likes:cat')!r}.")
    bobs = []

    def alice_then_bob(*words: Any) -> Any:
        reply = alice(*words)
        bobs.append(bob("INCR", "likes:cat"))
        return reply
    like(alice_then_bob, "cat")
    found, wanted = int(alice("GET", "likes:cat")), 2 + len(bobs)
    require(found == wanted, f"Bob has liked the cat too, meanwhile. There are {found} likes in place of {wanted}.")


class Prices:
    """A database that takes its time to change a price: meanwhile somebody may ask for it."""

    current, asked, meanwhile = 10, 0, staticmethod(lambda: None)

    def price(self, article: int) -> int:
        self.asked += 1
        return self.current

    def change(self, article: int, price: int) -> None:
        self.meanwhile()
        self.current = price


@exercise("01-2", "price is the function of section 5. change has two things to do: in the database, and in the cache.",
          "DEL takes the old copy away. The next customer fetches the new price.",
          "First the database, then DEL. In the other order somebody may fetch the old price in between, and keep it.")
def shop(solution: Callable[..., Any]) -> None:
    """Against: cache first or database first, the order does not matter."""
    (_, _, alice, bob), prices = start(), Prices()
    here, there = solution(alice, prices), solution(bob, prices)
    alice("SET", "price:2", 20)
    for one in here, there:
        expect(one.price, 1, wants=10)
    require(prices.asked == 1, f"Two customers, and the database was asked {prices.asked} times. Once is enough.")
    require(alice("TTL", "price:1") == 60, f"TTL price:1 answers {alice('TTL', 'price:1')} in place of 60.")
    prices.meanwhile = lambda: there.price(1)
    here.change(1, 12)
    require(prices.current == 12, f"After change(1, 12) the database still says {prices.current}.")
    require(alice("TTL", "price:1") != -1, "change has left a copy that never ends.")
    require(alice("EXISTS", "price:2"), "change(1, 12) has taken away the copy of article 2 as well.")
    require(there.price(1) == 12, "Bob asked while the price was being changed, and later he is told the old one.")


@exercise("01-3", "A set for each city, as in section 7. save and delete must first find out where the user lived.",
          "HGET user:<user> city, then SREM from the set of that city, before anything new is written.",
          "delete: HGET, SREM if there was a city, DEL. living_in: SMEMBERS, and decode each member.")
def users(solution: Callable[..., Any]) -> None:
    """Against: an index keeps itself."""
    _, server, alice, bob = start()
    here, there = solution(alice), solution(bob)
    for number in range(10):
        here.save(str(number), "Graz" if number < 3 else "Wien")
    alice("HSET", "user:0", "name", "Ann")
    for act, *words in (here.save, "0", "Wien"), (there.save, "1", "Graz"), (here.delete, "2"), (here.delete, "nobody"):
        act(*words)
    before = server.stats.total_commands_processed
    for city, wants in ("Graz", {"1"}), ("Linz", set()), ("Wien", set("03456789")):
        expect(there.living_in, city, wants=wants)
    needed = server.stats.total_commands_processed - before
    require(needed <= 6, f"For three cities living_in needed {needed} requests. Six must do.")
    hashes = alice("HGET", "user:0", "city"), alice("EXISTS", "user:2")
    require(hashes == (b"Wien", 0), "The index is right, the hashes are wrong.")
    require(alice("HGET", "user:0", "name") == b"Ann", "User 0 moved, and lost her name: save writes one field.")


@exercise("01-4", "call.args holds three words. call.lookup(key, bytes) finds the value, or raises WRONGTYPE.",
          'kvref.commands.arguments.integer reads a number. call.db.set(key, b"%d" % number) stores one as a string.',
          'Return None before you store anything. After call.db.set say call.changed(key, "sell"), once.')
def command(handler: Callable[..., Any]) -> None:
    """Against: what must not be interrupted needs a lock."""
    world, server, alice, _ = start()
    server.commands[b"sell"] = Command("sell", handler, 3, frozenset({"write"}), (1, 1, 1), "string", "7.0.15", "")
    for request, wants in SALES:
        try:
            found = alice(*request.split())
        except ReplyError as error:
            found = str(error)
        require(found == wants, f"{request} answered {found!r}. It should be {wants!r}.")
    require(server.dirty == 6, f"There were six changes, three by SELL. call.changed was told of {server.dirty}.")
    world.run(ms=10_000)
    require(alice("SELL", "seats", 5) == 1, "A key whose time is over counts as 0. call.lookup looks at its deadline.")
