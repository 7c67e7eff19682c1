"""Simulated children, background fsyncs and signals."""

import pytest

from kvref.ports import Ended
from kvref.sim.clock import Clock
from kvref.sim.disk import Disk
from kvref.sim.processes import Processes


class Computer:
    def __init__(self):
        self.clock = Clock()
        self.disk = Disk(self.clock)
        self.wakes = 0
        self.processes = Processes(self.clock, self.disk, self.wake)

    def wake(self):
        self.wakes += 1

    def kinds(self):
        return [operation.kind for operation in self.disk.operations]


@pytest.fixture
def computer():
    return Computer()


def snapshot(values):
    """The work of a child: what a BGSAVE does."""
    def work(disk):
        file = disk.open("/temp", "w")
        for value in values:
            disk.write(file, value)
        disk.fsync(file)
        disk.close(file)
        disk.rename("/temp", "/dump")
        disk.fsync_dir("/")
    return work


def test_a_child_works_in_steps_while_time_passes(computer):
    pid = computer.processes.fork(snapshot([b"a", b"b"]))
    assert pid == 101 and computer.processes.pid == 100
    assert computer.kinds() == []
    computer.clock.sleep(199)
    assert computer.kinds() == ["create"]
    computer.clock.sleep(1)
    assert computer.kinds() == ["create", "write"]
    computer.clock.sleep(10_000)
    assert computer.kinds() == ["create", "write", "write", "fsync", "rename", "fsync_dir"]
    assert computer.disk.content("/dump", durable=True) == b"ab"


def test_steps_take_their_time_and_an_fsync_takes_the_disk_s_too(computer):
    computer.processes.fork(snapshot([b"a"]))
    computer.clock.sleep(10_000)
    times = {operation.kind: operation.time_us for operation in computer.disk.operations}
    assert times == {"create": 100, "write": 200, "fsync": 1300, "rename": 1500, "fsync_dir": 2600}


def test_a_child_does_not_hold_up_its_parent(computer):
    computer.processes.fork(snapshot([b"a"]))
    computer.clock.sleep(250)
    assert computer.clock.monotonic_us() == 250


def test_the_child_s_bytes_are_those_of_the_fork(computer):
    memory = bytearray(b"before")
    computer.processes.fork(lambda disk: snapshot([memory])(disk))
    memory[:] = b"after!"
    computer.clock.sleep(10_000)
    assert computer.disk.content("/dump") == b"before"


def test_a_child_that_ended_is_reaped_once(computer):
    pid = computer.processes.fork(snapshot([b"a"]))
    assert computer.processes.reap() == [] and not computer.processes.has_news()
    computer.clock.sleep(10_000)
    assert computer.processes.has_news()
    assert computer.processes.reap() == [Ended(pid, 0)]
    assert computer.processes.reap() == []


def test_a_child_that_raises_ends_with_status_1_after_what_it_had_done(computer):
    def work(disk):
        disk.open("/temp", "w")
        raise ValueError("a bug")
    pid = computer.processes.fork(work)
    computer.clock.sleep(1000)
    assert computer.processes.reap() == [Ended(pid, 1, error="ValueError('a bug')")]
    assert computer.disk.list("/") == ["temp"]


def test_a_step_that_fails_on_the_real_disk_ends_the_child_with_status_1(computer):
    pid = computer.processes.fork(snapshot([b"a"]))
    computer.clock.sleep(1350)
    computer.disk.unlink("/temp")
    computer.clock.sleep(10_000)
    assert computer.processes.reap() == [Ended(pid, 1, error="No such file or directory")]
    assert computer.disk.list("/") == []


def test_a_child_sees_the_files_of_the_fork_and_may_catch_errors(computer):
    file = computer.disk.open("/old", "w")
    computer.disk.write(file, b"12345")
    seen = []
    def work(disk):
        seen.append((disk.list("/"), disk.read(disk.open("/old", "r"), 10)))
        try:
            disk.unlink("/none")
        except FileNotFoundError:
            seen.append("caught")
    pid = computer.processes.fork(work)
    computer.clock.sleep(10_000)
    assert seen == [(["old"], b"12345"), "caught"]
    assert computer.processes.reap() == [Ended(pid, 0)]


def test_a_killed_child_stops_between_two_steps(computer):
    pid = computer.processes.fork(snapshot([b"a", b"b"]))
    computer.clock.sleep(250)
    computer.processes.kill(pid)
    computer.clock.sleep(10_000)
    assert computer.processes.reap() == [Ended(pid, -9)]
    assert computer.disk.content("/temp") == b"a"
    with pytest.raises(ProcessLookupError):
        computer.processes.kill(pid)


def test_a_power_failure_between_two_steps_of_a_child_leaves_the_old_dump(computer):
    snapshot([b"old"])(computer.disk)
    start = computer.clock.monotonic_us()
    computer.processes.fork(snapshot([b"new"]))
    computer.clock.sleep(1550)
    assert computer.kinds()[-1] == "rename" and computer.clock.monotonic_us() == start + 1550
    computer.disk.power_loss()
    assert computer.disk.content("/dump") == b"old"


def test_two_children_work_side_by_side_on_files_of_their_own(computer):
    for name in ("one", "two"):
        computer.processes.fork(lambda disk, name=name: disk.write(disk.open(f"/{name}", "w"), name.encode()))
    computer.clock.sleep(1000)
    assert computer.kinds() == ["create", "create", "write", "write"]
    assert (computer.disk.content("/one"), computer.disk.content("/two")) == (b"one", b"two")


def test_a_background_fsync_covers_what_was_written_when_it_began(computer):
    file = computer.disk.open("/f", "w")
    computer.disk.write(file, b"early")
    job = computer.processes.fsync_in_background(file)
    computer.disk.write(file, b" late")
    computer.clock.sleep(999)
    assert not job.done and computer.wakes == 0
    computer.clock.sleep(1)
    assert job.done and job.error is None and computer.wakes == 1
    assert bytes(computer.disk.inodes[file.inode].durable) == b"early"


def test_background_fsyncs_run_one_after_the_other(computer):
    files = [computer.disk.open(f"/{name}", "w") for name in "ab"]
    jobs = [computer.processes.fsync_in_background(file) for file in files]
    computer.clock.sleep(1000)
    computer.disk.write(files[1], b"x")         # too late for the second, which has just begun
    assert [job.done for job in jobs] == [True, False]
    computer.clock.sleep(1000)
    assert jobs[1].done and computer.disk.inodes[files[1].inode].durable == b""


def test_a_background_fsync_of_a_closed_file_ends_with_an_error(computer):
    file = computer.disk.open("/f", "w")
    computer.disk.close(file)
    job = computer.processes.fsync_in_background(file)
    computer.clock.sleep(0)
    assert job.done and isinstance(job.error, OSError)


def test_signals_are_delivered_once_and_wake_the_loop(computer):
    computer.processes.deliver("SIGTERM")
    assert computer.wakes == 1
    assert computer.processes.signals() == ["SIGTERM"]
    assert computer.processes.signals() == []


def test_memory_is_what_is_measured(computer):
    assert computer.processes.memory() == 8 * 1024 * 1024
    computer.processes.measure = lambda: 42
    assert computer.processes.memory() == 42
