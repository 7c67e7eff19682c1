"""The simulated disk: real errors, and two states kept apart, what is visible and what is durable."""

import errno
import pickle

import pytest

from kvref.sim.clock import Clock
from kvref.sim.disk import Disk, Fault
from kvref.sim.processes import Processes


@pytest.fixture
def disk():
    return Disk(Clock())


def put(disk, path, data, sync="data name"):
    file = disk.open(path, "w")
    disk.write(file, data)
    if "data" in sync:
        disk.fsync(file)
    disk.close(file)
    if "name" in sync:
        disk.fsync_dir(path.rpartition("/")[0] or "/")


def code(call, *args):
    with pytest.raises(OSError) as error:
        call(*args)
    return error.value.errno


# ---- files

def test_w_empties_a_appends_and_r_reads_on_from_where_it_was(disk):
    put(disk, "/f", b"old old old")
    put(disk, "/f", b"hello ")
    disk.write(disk.open("/f", "a"), b"world")
    file = disk.open("/f", "r")
    assert [disk.read(file, 8), disk.read(file, 8), disk.read(file, 8)] == [b"hello wo", b"rld", b""]
    assert disk.size(file) == 11


def test_appending_goes_to_the_end_even_after_truncate(disk):
    file = disk.open("/f", "a")
    disk.write(file, b"abcdef")
    disk.truncate(file, 2)
    disk.write(file, b"X")
    assert disk.content("/f") == b"abX"


def test_writing_past_the_end_leaves_zeros(disk):
    file = disk.open("/f", "w")
    disk.write(file, b"abcd")
    disk.truncate(file, 0)
    disk.write(file, b"e")
    assert disk.content("/f") == b"\0\0\0\0e"
    disk.truncate(file, 7)
    assert disk.content("/f") == b"\0\0\0\0e\0\0"


def test_an_unlinked_file_that_is_open_goes_on_working(disk):
    put(disk, "/f", b"abc")
    reader, writer = disk.open("/f", "r"), disk.open("/f", "a")
    disk.unlink("/f")
    disk.write(writer, b"def")
    assert disk.read(reader, 10) == b"abcdef"
    assert disk.list("/") == []


def test_a_renamed_file_that_is_open_is_written_under_its_new_name(disk):
    file = disk.open("/old", "w")
    disk.rename("/old", "/new")
    disk.write(file, b"x")
    assert disk.content("/new") == b"x"
    assert repr(disk.operations[-1]) == "#3 write /new 1 bytes at 0"


def test_rename_replaces_and_who_has_the_replaced_file_open_keeps_it(disk):
    put(disk, "/a", b"A")
    put(disk, "/b", b"B")
    reader = disk.open("/b", "r")
    disk.rename("/a", "/b")
    assert disk.list("/") == ["b"]
    assert (disk.content("/b"), disk.read(reader, 9)) == (b"A", b"B")


def test_directories_hold_files_and_list_is_sorted(disk):
    disk.mkdir("/d")
    for name in "cab":
        put(disk, f"/d/{name}", b"")
    disk.mkdir("/d/dd")
    assert disk.list("/d") == ["a", "b", "c", "dd"]
    disk.rename("/d", "/e")
    assert disk.list("/e/") == ["a", "b", "c", "dd"]


def test_errors_are_those_of_a_real_disk(disk):
    disk.mkdir("/d")
    put(disk, "/d/f", b"x")
    put(disk, "/f", b"x")
    assert code(disk.open, "/none", "r") == errno.ENOENT
    assert code(disk.open, "/none/f", "w") == errno.ENOENT
    assert code(disk.open, "/f/g", "w") == errno.ENOTDIR
    assert code(disk.open, "/d", "a") == errno.EISDIR
    assert code(disk.open, "/", "r") == errno.EISDIR
    assert code(disk.unlink, "/none") == errno.ENOENT
    assert code(disk.unlink, "/d") == errno.EISDIR
    assert code(disk.mkdir, "/d") == errno.EEXIST
    assert code(disk.mkdir, "/f") == errno.EEXIST
    assert code(disk.list, "/f") == errno.ENOTDIR
    assert code(disk.list, "/none") == errno.ENOENT
    assert code(disk.fsync_dir, "/f") == errno.ENOTDIR
    assert code(disk.rename, "/none", "/x") == errno.ENOENT
    assert code(disk.rename, "/f", "/none/x") == errno.ENOENT
    assert code(disk.rename, "/f", "/d") == errno.EISDIR
    assert code(disk.rename, "/d", "/f") == errno.ENOTDIR
    assert code(disk.rename, "/d", "/d/inside") == errno.EINVAL
    disk.mkdir("/e")
    assert code(disk.rename, "/e", "/d") == errno.ENOTEMPTY


def test_errors_are_python_s_classes_and_name_the_path(disk):
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '/none'"):
        disk.open("/none", "r")


def test_open_modes_and_closed_files_are_respected(disk):
    put(disk, "/f", b"x")
    reader, writer = disk.open("/f", "r"), disk.open("/f", "a")
    assert code(disk.write, reader, b"x") == errno.EBADF
    assert code(disk.read, writer, 1) == errno.EBADF
    assert code(disk.truncate, reader, 0) == errno.EINVAL
    disk.close(reader)
    assert code(disk.read, reader, 1) == errno.EBADF
    assert code(disk.close, reader) == errno.EBADF


# ---- what is durable

def test_nothing_unsynced_survives(disk):
    put(disk, "/f", b"x", sync="")
    disk.mkdir("/d")
    disk.power_loss("synced", 0)
    assert disk.list("/") == []


def test_bytes_without_their_name_are_lost_and_a_name_without_its_bytes_is_empty(disk):
    put(disk, "/bytes", b"x", sync="data")
    disk.power_loss("synced", 0)
    assert disk.list("/") == []
    put(disk, "/name", b"x", sync="name")
    disk.power_loss("synced", 0)
    assert disk.content("/name") == b""


def test_what_was_written_after_the_fsync_is_lost(disk):
    put(disk, "/f", b"kept")
    file = disk.open("/f", "a")
    disk.write(file, b" lost")
    assert (disk.content("/f"), disk.content("/f", durable=True)) == (b"kept lost", b"kept")
    disk.power_loss()
    assert disk.content("/f") == b"kept"


def test_an_unsynced_truncate_comes_back(disk):
    put(disk, "/f", b"long ago")
    disk.open("/f", "w")
    assert disk.content("/f") == b""
    disk.power_loss()
    assert disk.content("/f") == b"long ago"


def test_an_unsynced_rename_or_unlink_is_undone_as_a_whole(disk):
    put(disk, "/dump", b"old")
    put(disk, "/temp", b"new")
    put(disk, "/gone", b"not yet")
    disk.rename("/temp", "/dump")
    disk.unlink("/gone")
    disk.power_loss()
    assert {name: disk.content(f"/{name}") for name in disk.list("/")} == {
        "dump": b"old", "temp": b"new", "gone": b"not yet"}


def test_fsync_dir_makes_a_rename_durable_with_the_bytes_that_were_synced(disk):
    put(disk, "/dump", b"old")
    put(disk, "/temp", b"new", sync="data")
    disk.rename("/temp", "/dump")
    disk.fsync_dir("/")
    disk.power_loss()
    assert disk.list("/") == ["dump"] and disk.content("/dump") == b"new"


def test_a_rename_between_directories_is_two_changes_and_each_directory_has_its_own(disk):
    for name in ("/a", "/b"):
        disk.mkdir(name)
    disk.fsync_dir("/")
    put(disk, "/a/f", b"x")
    disk.rename("/a/f", "/b/f")
    disk.fsync_dir("/b")
    disk.power_loss()
    assert (disk.list("/a"), disk.list("/b")) == (["f"], ["f"])


def test_a_directory_is_a_name_in_its_parent(disk):
    disk.mkdir("/d")
    put(disk, "/d/f", b"x")
    twin = disk.copy()
    twin.power_loss()
    assert twin.list("/") == []
    disk.fsync_dir("/")
    disk.power_loss()
    assert disk.content("/d/f") == b"x"


def test_fsync_covers_what_was_written_before_it_began(disk):
    file = disk.open("/f", "w")
    disk.write(file, b"before")
    begun = disk.begin_fsync(file)
    disk.write(file, b" during")
    disk.end_fsync(begun)
    assert disk.content("/f") == b"before during"
    assert bytes(disk.inodes[file.inode].durable) == b"before"


def test_unsynced_operations_are_kept_in_order_for_each_file_and_directory(disk):
    file = disk.open("/f", "w")
    disk.write(file, b"ab")
    disk.truncate(file, 1)
    node = disk.inodes[file.inode]
    assert [operation.kind for operation in node.pending] == ["write", "truncate"]
    assert [operation.kind for operation in disk.inodes[1].pending] == ["create"]
    disk.fsync(file)
    assert node.pending == [] and len(disk.inodes[1].pending) == 1


def test_after_a_power_loss_paths_are_the_durable_ones_and_open_files_are_dead(disk):
    put(disk, "/f", b"x")
    lost = disk.open("/lost", "w")
    disk.rename("/f", "/g")
    disk.power_loss()
    disk.write(disk.open("/f", "a"), b"y")
    assert disk.operations[-1].path == "/f"
    assert code(disk.write, lost, b"z") == errno.EBADF


def test_states_are_numbered_and_others_are_refused(disk):
    put(disk, "/f", b"ab")
    disk.write(disk.open("/f", "a"), b"cd")
    assert list(disk.states("synced")) == [0] and list(disk.states("ext4")) == [0, 1, 2]
    with pytest.raises(ValueError, match="states 0 to 2, not 3"):
        disk.power_loss("ext4", 3)
    disk.power_loss("ext4", 2)
    assert disk.content("/f") == b"abcd" and list(disk.states("ext4")) == [0]
    with pytest.raises(ValueError, match="state"):
        disk.power_loss("synced", 1)
    with pytest.raises(ValueError, match="'sunny'.*synced"):
        disk.states("sunny")


# ---- history and time

def test_operations_are_recorded_in_one_order_and_read_well(disk):
    disk.mkdir("/d")
    file = disk.open("/d/temp", "w")
    disk.write(file, b"abc")
    disk.write(file, b"de")
    disk.truncate(file, 4)
    disk.fsync(file)
    disk.rename("/d/temp", "/d/f")
    disk.fsync_dir("/d")
    disk.unlink("/d/f")
    disk.power_loss()
    assert [repr(operation) for operation in disk.operations] == [
        "#1 mkdir /d", "#2 create /d/temp", "#3 write /d/temp 3 bytes at 0", "#4 write /d/temp 2 bytes at 3",
        "#5 truncate /d/temp to 4 bytes", "#6 fsync /d/temp", "#7 rename /d/temp to /d/f", "#8 fsync_dir /d",
        "#9 unlink /d/f", "#10 power loss synced state 0"]


def test_the_state_is_a_function_of_the_operations(disk):
    disk.mkdir("/d")
    put(disk, "/d/f", b"one")
    disk.rename("/d/f", "/g")
    disk.write(disk.open("/g", "a"), b" two")
    disk.fsync_dir("/")
    again = Disk(Clock())
    for operation in disk.operations:
        again.apply(operation)
    def image(each):
        return {number: (node.path, node.visible, node.durable, node.pending) for number, node in each.inodes.items()}
    assert image(again) == image(disk)


def test_reading_and_failing_are_no_operations(disk):
    put(disk, "/f", b"x")
    count = len(disk.operations)
    disk.read(disk.open("/f", "r"), 1)
    code(disk.unlink, "/none")
    disk.write(disk.open("/f", "a"), b"")
    assert len(disk.operations) == count


def test_fsync_takes_a_millisecond_and_writing_no_time(disk):
    put(disk, "/f", b"x", sync="")
    assert disk.clock.monotonic_us() == 0
    file = disk.open("/f", "a")
    disk.fsync(file)
    assert disk.clock.monotonic_us() == 1000 == disk.operations[-1].time_us
    disk.latency_us.update(fsync=0, write=7)
    disk.fsync(file)
    disk.write(file, b"x")
    assert disk.clock.monotonic_us() == 1007


def test_a_view_that_does_not_wait_is_the_same_disk(disk):
    view = disk.instantly()
    put(view, "/f", b"x")
    assert disk.content("/f") == b"x" and disk.clock.monotonic_us() == 0
    assert len(disk.operations) == 4 == disk.operations[-1].seq


def test_a_copy_is_a_disk_of_its_own(disk):
    put(disk, "/f", b"x")
    twin = disk.copy()
    twin.write(twin.open("/f", "a"), b"y")
    twin.unlink("/f")
    assert disk.content("/f") == b"x" and len(disk.operations) == 4


def test_an_fsync_on_a_copy_covers_what_was_written_before_the_copy(disk):
    put(disk, "/f", b"x", sync="name")
    twin = disk.copy()
    twin.fsync(twin.open("/f", "a"))
    twin.power_loss()
    assert twin.content("/f") == b"x" and disk.content("/f", durable=True) == b""


def test_observers_hear_of_each_operation(disk):
    heard = []
    disk.observers.append(heard.append)
    put(disk, "/f", b"x")
    assert heard == disk.operations


def test_the_disk_shows_itself(disk):
    disk.mkdir("/d")
    put(disk, "/d/whole", b"x" * 1234)
    put(disk, "/d/part", b"x" * 10)
    disk.write(disk.open("/d/part", "a"), b"y" * 5)
    put(disk, "/d/new", b"z", sync="")
    lines = [" ".join(line.split()) for line in repr(disk).splitlines()]
    assert lines == ["<Disk, 12 operations", "/d/ the name is not durable",
                     "/d/new 1 bytes, 0 of them durable, the name is not durable",
                     "/d/part 15 bytes, 10 of them durable", "/d/whole 1,234 bytes, durable>"]


def test_a_notebook_shows_a_table_with_bars(disk):
    disk.mkdir("/d")
    put(disk, "/d/a<b", b"x" * 30)
    disk.write(disk.open("/d/a<b", "a"), b"y" * 10)
    for number in range(20):
        put(disk, "/d/many", bytes([number]), "")
    html = disk._repr_html_()
    assert "/d/a&lt;b" in html and "a<b" not in html and "<script" not in html
    assert "<td>40</td><td>30</td>" in html and "width:90px" in html and "write /d/a&lt;b 10 bytes at 30" in html
    assert "more</td>" in html and html.count("<tr>") == 5
    disk.faults.append(Fault("fsync", error="EIO"))
    code(disk.fsync, disk.open("/d/a<b", "a"))
    assert "dropped: #" in disk._repr_html_()


# ---- images

def test_an_image_is_all_that_is_visible_and_a_disk_of_it_has_it_durably(disk):
    disk.mkdir("/d")
    put(disk, "/d/f", b"x", sync="")
    put(disk, "/d-", b"", sync="")
    disk.mkdir("/d/empty")
    image = disk.image()
    assert image == (("/d", None), ("/d-", b""), ("/d/empty", None), ("/d/f", b"x"))
    twin = Disk.of(image, Clock())
    assert twin.image() == image and twin.operations == []
    twin.power_loss()
    assert twin.image() == image
    put(twin, "/d/g", b"new")
    twin.write(twin.open("/d/f", "a"), b"y")
    twin.power_loss()
    assert twin.image() == (*image, ("/d/g", b"new"))


def test_files_of_before_a_power_loss_are_dead_though_inodes_are_numbered_anew(disk):
    files = [disk.open(f"/{number}", "w") for number in range(5)]
    disk.fsync_dir("/")
    view = disk.instantly()
    disk.power_loss()
    put(disk, "/new", b"x")
    assert [code(disk.write, file, b"x") for file in files] == [errno.EBADF] * 5
    assert view.image() == disk.image() and len(disk.image()) == 6


def test_a_disk_that_moves_to_another_computer_takes_its_unsynced_state_along(disk):
    put(disk, "/f", b"x", sync="name")
    disk.faults.append(Fault("*", error="EIO", times=0))
    clock = Clock()
    twin = disk.moved(clock, iter(range(1, 100)))
    twin.fsync(twin.open("/f", "a"))
    assert clock.monotonic_us() == 1000 and disk.clock.monotonic_us() == 1000
    twin.power_loss()
    assert twin.content("/f") == b"x" and [done.seq for done in twin.operations] == [4, 5]


# ---- faults

def test_a_fault_is_data(disk):
    fault = Fault("write", "/f*", error="ENOSPC", short=3, after=1, times=0)
    assert repr(fault) == "Fault('write', path='/f*', error='ENOSPC', short=3, after=1, times=0)"
    assert pickle.loads(pickle.dumps(fault)) == fault == Fault("write", "/f*", "ENOSPC", 3, after=1, times=0)
    disk.faults.append(fault)
    file = disk.open("/file", "w")
    assert [disk.write(file, b"abcdef"), fault.fired, disk.write(file, b"abcdef"), fault.fired] == [6, 0, 3, 1]
    assert repr(fault).endswith("times=0) struck 1 times") and fault.fresh().fired == 0
    with pytest.raises(ValueError, match="ENOSPACE"):
        Fault("write", error="ENOSPACE")


def test_a_full_disk_takes_a_part_and_then_nothing(disk):
    disk.faults.append(Fault("write", "/f", error="ENOSPC", short=4, times=0))
    file = disk.open("/f", "w")
    assert disk.write(file, b"abcdef") == 4
    with pytest.raises(OSError, match="No space left on device") as error:
        disk.write(file, b"ef")
    assert error.value.errno == errno.ENOSPC
    assert disk.content("/f") == b"abcd" and disk.write(disk.open("/g", "w"), b"abcdef") == 6
    assert [repr(done) for done in disk.operations[:2]] == ["#1 create /f", "#2 write /f 4 bytes at 0 (short)"]
    assert file.position == 4


def test_every_operation_can_fail_and_then_it_has_not_been(disk):
    put(disk, "/f", b"x")
    disk.mkdir("/d")
    reader, writer = disk.open("/f", "r"), disk.open("/f", "a")
    calls = {"create": (disk.open, "/new", "w"), "truncate": (disk.truncate, writer, 0),
             "write": (disk.write, writer, b"y"), "open": (disk.open, "/f", "r"), "read": (disk.read, reader, 1),
             "fsync": (disk.fsync, writer),
             "rename": (disk.rename, "/f", "/g"), "unlink": (disk.unlink, "/f"), "mkdir": (disk.mkdir, "/e"),
             "fsync_dir": (disk.fsync_dir, "/"), "list": (disk.list, "/")}
    before, image = len(disk.operations), disk.image()
    for kind, call in calls.items():
        disk.faults[:] = [Fault(kind, error="EIO")]
        assert code(*call) == errno.EIO, kind
        assert disk.faults[0].fired == 1
    assert len(disk.operations) == before and disk.image() == image
    for kind, call in calls.items():
        call[0](*call[1:]) if kind not in ("unlink", "rename") else None        # struck once, and no more
    disk.faults[:] = [Fault("truncate", error="EROFS")]
    assert code(disk.open, "/f", "w") == errno.EROFS


def test_faults_strike_after_so_many_and_so_often_and_by_name(disk):
    disk.faults.append(Fault("fsync", "/*.aof", error="EIO", after=1, times=2))
    log, other = disk.open("/a.aof", "w"), disk.open("/dump", "w")
    results = []
    for _ in range(5):
        disk.fsync(other)
        try:
            disk.fsync(log)
            results.append("")
        except OSError as error:
            results.append(errno.errorcode[error.errno])
    assert results == ["", "EIO", "EIO", "", ""]


def test_a_slow_operation_takes_longer_and_several_faults_add_up(disk):
    disk.faults += [Fault("fsync", delay_us=50_000), Fault("*", delay_us=7, after=1, times=0)]
    file = disk.open("/f", "w")
    disk.write(file, b"x")
    disk.fsync(file)
    disk.fsync(file)
    assert [done.time_us for done in disk.operations] == [0, 7, 51_014, 52_021]


def test_a_failed_fsync_leaves_bytes_readable_and_no_later_fsync_saves_them(disk):
    put(disk, "/f", b"ab")
    file = disk.open("/f", "a")
    disk.write(file, b"cd")
    disk.faults.append(Fault("fsync", error="EIO"))
    assert code(disk.fsync, file) == errno.EIO
    assert repr(disk.operations[-1]) == "#6 fsync /f (EIO)"
    disk.fsync(file)
    assert (disk.content("/f"), disk.content("/f", durable=True)) == (b"abcd", b"ab")
    assert [repr(done) for done in disk.dropped] == ["#5 write /f 2 bytes at 2"]
    assert disk.copy().dropped == disk.dropped
    assert repr(disk).endswith("4 bytes, 2 of them durable, 2 dropped by a failed fsync>")
    disk.write(file, b"ef")
    disk.fsync(file)
    assert (disk.content("/f"), disk.content("/f", durable=True)) == (b"abcdef", b"ab\0\0ef")
    disk.power_loss()
    assert disk.content("/f") == b"ab\0\0ef" and disk.dropped == []


def test_a_failed_fsync_drops_what_was_written_before_it_began_and_no_truncate(disk):
    put(disk, "/f", b"abcd")
    file = disk.open("/f", "a")
    disk.truncate(file, 1)
    disk.write(file, b"early")
    disk.faults.append(Fault("fsync", error="EIO"))
    begun = disk.begin_fsync(file)
    disk.write(file, b"late")
    assert code(disk.end_fsync, begun) == errno.EIO
    disk.fsync(file)
    assert disk.content("/f", durable=True) == b"a" + bytes(5) + b"late"


def test_a_failed_fsync_of_a_directory_leaves_its_names_undecided(disk):
    put(disk, "/f", b"x", sync="data")
    disk.faults.append(Fault("fsync_dir", error="EIO"))
    assert code(disk.fsync_dir, "/") == errno.EIO
    disk.copy().power_loss()
    disk.fsync_dir("/")
    disk.power_loss()
    assert disk.content("/f") == b"x"


def test_a_lying_fsync_succeeds_and_saves_nothing(disk):
    disk.faults += [Fault("fsync", lies=True, times=0), Fault("fsync_dir", lies=True, times=0)]
    put(disk, "/f", b"x")
    assert [repr(done) for done in disk.operations[-2:]] == ["#3 fsync /f (lies)", "#4 fsync_dir / (lies)"]
    for profile in "synced", "ext4":
        twin = disk.copy()
        twin.power_loss(profile)
        assert twin.image() == ()
    disk.faults.clear()
    disk.fsync(disk.open("/f", "a"))
    disk.fsync_dir("/")
    disk.power_loss()
    assert disk.content("/f") == b"x"


def test_a_bit_that_rots_is_read_at_once_and_is_there_after_a_crash(disk):
    put(disk, "/f", b"abc")
    disk.faults.append(Fault("create", "/g", rots="/f", bit=8 * 4))             # behind the end: from the beginning again
    disk.open("/g", "w")
    assert disk.content("/f") == disk.content("/f", durable=True) == b"acc"
    assert [repr(done) for done in disk.operations[-2:]] == ["#5 rot /f in byte 1", "#6 create /g"]
    for profile in "synced", "ext4", "posix":
        twin = disk.copy()
        twin.power_loss(profile)
        assert twin.content("/f") == b"acc"


def test_what_is_not_durable_does_not_rot(disk):
    put(disk, "/f", b"abc")
    file = disk.open("/f", "w")
    disk.write(file, b"xyz")
    disk.faults.append(Fault("fsync", "/f", rots="/f", bit=8))
    twin = disk.copy()
    disk.fsync(file)
    assert disk.content("/f") == disk.content("/f", durable=True) == b"xyz" and "rot" in [d.kind for d in disk.operations]
    twin.faults.append(Fault("mkdir", rots="*", bit=8))
    twin.mkdir("/d")
    assert (twin.content("/f"), twin.content("/f", durable=True)) == (b"xyz", b"acc")


def test_an_empty_file_and_a_directory_do_not_rot(disk):
    disk.mkdir("/d")
    disk.open("/f", "w")
    disk.fsync_dir("/")
    disk.faults.append(Fault("create", "/g", rots="*"))
    disk.open("/g", "w")
    assert "rot" not in [done.kind for done in disk.operations] and disk.faults[0].fired == 1


def test_a_lie_is_over_with_the_next_honest_fsync(disk):
    disk.faults.append(Fault("fsync", lies=True))
    file = disk.open("/f", "w")
    node = disk.inodes[file.inode]
    disk.write(file, b"x")
    assert not node.is_betrayed
    disk.fsync(file)
    assert node.is_betrayed and disk.copy().inodes[file.inode].is_betrayed
    disk.write(file, b"y")
    disk.fsync(file)
    assert not node.is_betrayed and node.durable == b"xy"


def test_a_copy_has_no_faults_and_uses_none_up(disk):
    disk.faults.append(Fault("write", error="EIO"))
    twin = disk.copy()
    twin.write(twin.open("/f", "w"), b"x")
    assert twin.faults == [] and disk.faults[0].fired == 0
    view = disk.instantly()
    assert code(view.write, view.open("/f", "w"), b"x") == errno.EIO


# ---- ... of those that work in the background

@pytest.fixture
def processes(disk):
    return Processes(disk.clock, disk, lambda: None)


def snapshot(disk):
    """The work of a child."""
    file = disk.open("/temp", "w")
    left = b"snapshot"
    while left:
        left = left[disk.write(file, left):]
    disk.fsync(file)
    disk.close(file)
    disk.rename("/temp", "/dump")
    disk.fsync_dir("/")


def test_a_background_fsync_may_be_slow(disk, processes):
    file = disk.open("/f", "w")
    disk.write(file, b"x")
    disk.fsync_dir("/")
    disk.faults.append(Fault("fsync", delay_us=3_000_000))
    job = processes.fsync_in_background(file)
    disk.clock.sleep(3_000_999)
    assert not job.done
    disk.clock.sleep(1)
    assert job.done and disk.content("/f", durable=True) == b"x"


def test_a_background_fsync_may_fail_or_lie(disk, processes):
    file = disk.open("/f", "w")
    disk.fsync_dir("/")
    disk.faults += [Fault("fsync", error="EIO"), Fault("fsync", lies=True, after=1)]
    jobs = []
    for _ in range(3):
        disk.write(file, b"x")
        jobs.append(processes.fsync_in_background(file))
        disk.clock.sleep(1000)
    assert [job.error and job.error.errno for job in jobs] == [errno.EIO, None, None]
    assert disk.content("/f", durable=True) == b"\0xx" and [done.seq for done in disk.dropped] == [3]
    assert [done.error for done in disk.operations if done.kind == "fsync"] == ["EIO", "lies", ""]


@pytest.mark.parametrize("kind, error, text", [
    ("create", "EMFILE", "Too many open files"), ("write", "ENOSPC", "No space left on device"),
    ("fsync", "EIO", "Input/output error"), ("rename", "EIO", "Input/output error")])
def test_a_child_ends_where_its_disk_fails(kind, error, text, disk, processes):
    disk.faults.append(Fault(kind, "/temp", error=error))
    processes.fork(snapshot)
    disk.clock.sleep(100_000)
    ended, = processes.reap()
    assert (ended.status, ended.error) == (1, text) and disk.faults[0].fired == 1
    assert "rename" not in [done.kind for done in disk.operations]


def test_a_child_writes_the_rest_after_a_short_write_and_fails_on_a_full_disk(disk, processes):
    disk.faults.append(Fault("write", short=3))
    processes.fork(snapshot)
    disk.clock.sleep(100_000)
    assert processes.reap()[0].status == 0 and disk.content("/dump", durable=True) == b"snapshot"
    assert [done.data for done in disk.operations if done.kind == "write"] == [b"sna", b"pshot"]
    disk.faults.append(Fault("write", short=3, error="ENOSPC", times=0))
    processes.fork(snapshot)
    disk.clock.sleep(100_000)
    assert processes.reap()[0].error == "No space left on device"
    assert (disk.content("/temp"), disk.content("/dump")) == (b"sna", b"snapshot")


def test_a_child_s_step_takes_as_long_as_a_fault_says(disk, processes):
    disk.faults += [Fault("write", "/temp", delay_us=10_000), Fault("fsync", delay_us=20_000)]
    processes.fork(snapshot)
    disk.clock.sleep(100_000)
    times = {done.kind: done.time_us for done in disk.operations}
    assert times == {"create": 100, "write": 10_200, "fsync": 31_300, "rename": 31_500, "fsync_dir": 32_600}
    assert [fault.fired for fault in disk.faults] == [1, 1]


def test_a_child_s_fsync_may_lie(disk, processes):
    disk.faults.append(Fault("fsync", lies=True))
    processes.fork(snapshot)
    disk.clock.sleep(100_000)
    disk.power_loss()
    assert disk.content("/dump") == b""


def test_faults_that_are_set_later_reach_children_too(disk, processes):
    disk.faults = [Fault("write", error="EIO")]
    processes.fork(snapshot)
    disk.clock.sleep(100_000)
    assert processes.reap()[0].status == 1
