"""Models of two other kinds of broker: a log with offsets, and a queue with acknowledgements. No servers.

Chapter 12 runs the same failures on these and on pub/sub. So the models hold what differs there, and nothing else: no
network, no disk, no time. Everything happens in the order of the calls, and twice in the same way.

The log (Kafka's model). The broker keeps every message and its place. Who reads says from where.
  - Topic(partitions, keep)     append(body, key) -> Record; of one key all go to one partition
  - Group(topic)                consumers that share the partitions, and how far they have come
      join, leave               the partitions are dealt out anew; what was read and not committed is read again
      poll(consumer)            the next Record, or None
      commit(record)            up to here it is done. *After* the work: at least once. *Before*: at most once
      seek(partition, offset)   read from there: replay

The queue (RabbitMQ's model). The broker hands each message to one consumer, and forgets it when that one says *done*.
  - Queue()                     consume(consumer, prefetch): it is sent messages, so many ahead of its `ack`s
      receive(consumer)         the next Delivery that it was sent, or None
      ack(delivery)             done: the broker forgets it
      cancel(consumer)          it is gone: what it has not acknowledged goes back to its old place, as redelivered
  - Exchange()                  bind(queue, pattern), publish(key, body): a copy for each queue that is bound by a match
  - topic_match(pattern, key)   words between dots: * is one word, # any number of them

Simpler than Kafka: one broker, no replicas; no idempotent producer, which there drops what its own library sends again;
retention by number, where there it is time or bytes; a key goes to a partition by its CRC; a group that has committed
nothing, or that retention has overtaken, begins at the oldest message, where there it begins at the end unless
auto.offset.reset says "earliest"; seek commits, too. Simpler than RabbitMQ: a topic exchange only; no publisher
confirms, no dead letters. Both keep messages on disks and on several computers, which these models do not show.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import Any, NamedTuple
from zlib import crc32

# ---- the log -------------------------------------------------------------------------------------


class Record(NamedTuple):
    """A message and its place, which never changes."""

    partition: int
    offset: int
    key: str
    body: Any


class Topic:
    """A name under which messages are kept, in partitions. Order is kept within each of them."""

    def __init__(self, partitions: int = 1, keep: int | None = None) -> None:
        """`keep`: each partition holds on to its newest so many messages, read or not; None: to all."""
        self.partitions: list[deque[Record]] = [deque(maxlen=keep) for _ in range(partitions)]
        self.ends = [0] * partitions                    # the offset that the next message gets

    def append(self, body: Any, key: str = "") -> Record:
        """Keep a message. Who will read it, and when, is not asked."""
        partition = crc32(key.encode()) % len(self.partitions)
        record = Record(partition, self.ends[partition], key, body)
        self.partitions[partition].append(record)
        self.ends[partition] += 1
        return record

    def at(self, partition: int, offset: int) -> Record | None:
        """The message at this place; where retention has taken it, the oldest that is left. None: not there yet."""
        kept = self.partitions[partition]
        first = self.ends[partition] - len(kept)
        return kept[max(0, offset - first)] if offset < self.ends[partition] else None


class Group:
    """Consumers that do one job together: each partition is read by one of them."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.consumers: list[str] = []
        self.committed = [0] * len(topic.partitions)    # the broker knows: up to here it is done
        self.positions = [0] * len(topic.partitions)    # the consumers know: up to here it was read

    def join(self, consumer: str) -> None:
        self.consumers.append(consumer)
        self.positions = list(self.committed)

    def leave(self, consumer: str) -> None:
        self.consumers.remove(consumer)
        self.positions = list(self.committed)

    def partitions_of(self, consumer: str) -> list[int]:
        """Dealt out in turn. A group of more consumers than partitions has some that get nothing."""
        mine, many = self.consumers.index(consumer), len(self.consumers)
        return [partition for partition in range(len(self.positions)) if partition % many == mine]

    def poll(self, consumer: str) -> Record | None:
        """The next message of one of this consumer's partitions, of the least read first."""
        for partition in sorted(self.partitions_of(consumer), key=self.positions.__getitem__):
            record = self.topic.at(partition, self.positions[partition])
            if record:
                self.positions[partition] = record.offset + 1
                return record
        return None

    def commit(self, record: Record) -> None:
        self.committed[record.partition] = record.offset + 1

    def seek(self, partition: int, offset: int) -> None:
        self.positions[partition] = self.committed[partition] = offset

    @property
    def lag(self) -> int:
        """How many messages are not done."""
        return sum(self.topic.ends) - sum(self.committed)


# ---- the queue -----------------------------------------------------------------------------------

class Delivery(NamedTuple):
    """A message on its way to a consumer. `number` is its place in the queue."""

    number: int
    key: str
    body: Any
    redelivered: bool = False


class Queue:
    """Messages that wait, and messages that were sent and are not acknowledged."""

    def __init__(self) -> None:
        self.waiting: list[Delivery] = []                       # by number
        self.unacknowledged: dict[int, str] = {}                # number -> consumer
        self._prefetch: dict[str, int] = {}                     # consumers, whose turn it is first
        self._sent: dict[str, list[Delivery]] = {}              # all that a consumer was sent and has not acknowledged
        self._received: dict[str, int] = {}                     # how many of them it has taken up
        self._count = 0

    def consume(self, consumer: str, prefetch: int = 1) -> None:
        self._prefetch[consumer], self._sent[consumer], self._received[consumer] = prefetch, [], 0
        self._send()

    def put(self, key: str, body: Any) -> None:
        self._count += 1
        self.waiting.append(Delivery(self._count, key, body))
        self._send()

    def receive(self, consumer: str) -> Delivery | None:
        at, sent = self._received[consumer], self._sent[consumer]
        if at == len(sent):
            return None
        self._received[consumer] += 1
        return sent[at]

    def ack(self, delivery: Delivery) -> None:
        consumer = self.unacknowledged.pop(delivery.number)
        self._sent[consumer].remove(delivery)
        self._received[consumer] -= 1
        self._send()

    def cancel(self, consumer: str) -> None:
        del self._prefetch[consumer], self._received[consumer]
        for delivery in self._sent.pop(consumer):
            del self.unacknowledged[delivery.number]
            insort(self.waiting, delivery._replace(redelivered=True), key=lambda message: message.number)
        self._send()

    def _send(self) -> None:
        """In turn, to whoever has room; who has none is passed over."""
        while self.waiting:
            ready = [name for name, prefetch in self._prefetch.items() if len(self._sent[name]) < prefetch]
            if not ready:
                return
            delivery, name = self.waiting.pop(0), ready[0]
            self.unacknowledged[delivery.number] = name
            self._sent[name].append(delivery)
            self._prefetch[name] = self._prefetch.pop(name)     # to the end of the line


class Exchange:
    """Where publishers leave messages. It keeps none: it puts a copy into each queue that wants one."""

    def __init__(self) -> None:
        self.bindings: list[tuple[Queue, str]] = []

    def bind(self, queue: Queue, pattern: str) -> None:
        self.bindings.append((queue, pattern))

    def publish(self, key: str, body: Any) -> int:
        """How many queues got a copy, each at most one. 0: nobody has it, and it is gone."""
        queues = {id(queue): queue for queue, pattern in self.bindings if topic_match(pattern, key)}
        for queue in queues.values():
            queue.put(key, body)
        return len(queues)


def topic_match(pattern: str, key: str) -> bool:
    """Whether a routing key fits: * stands for one word, # for none, one or several."""
    return _match(pattern.split("."), key.split("."))


def _match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_match(pattern[1:], words[taken:]) for taken in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _match(pattern[1:], words[1:])
