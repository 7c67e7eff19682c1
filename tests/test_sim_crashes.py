"""What may be found after a power loss: small histories whose states can be listed by hand, and properties of all.

A history is a function that does things to a disk; `legal` is everything that a profile allows after it.
"""

import inspect
import itertools
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvref.sim.clock import Clock
from kvref.sim.crashes import PROFILES, Found, Space
from kvref.sim.disk import Disk, Fault
from kvref.sim.inodes import LIES

ALL = 1_000_000
POWER = [profile for profile in PROFILES if profile != "synced"]
HONEST = [profile for profile in PROFILES if profile != "hostile"]


@pytest.fixture
def disk():
    return Disk(Clock()).instantly()


def put(disk, path, data, sync="data name"):
    file = disk.open(path, "w")
    disk.write(file, data)
    if "data" in sync:
        disk.fsync(file)
    if "name" in sync:
        disk.fsync_dir(path.rpartition("/")[0] or "/")
    return file


def legal(disk, profile):
    """{image: damages} of all states."""
    space = Space(disk, profile, ALL)
    assert space.is_exhaustive and len(space) == space.total
    found = {}
    for image, damage, _ in space:
        found.setdefault(image, set()).add(damage)
    return found


def images(*files):
    """The same from dicts {path: content}."""
    return {tuple(sorted(each.items())) for each in files}


def each(path, *contents, **others):
    return [{path: content, **others} for content in contents]


def is_legal(disk, profile, *files):
    assert set(legal(disk, profile)) == images(*files)


# ---- by hand

def test_synced_is_one_state_and_nothing_unsynced_survives_in_it(disk):
    put(disk, "/kept", b"abc")
    disk.write(disk.open("/kept", "a"), b"def")
    put(disk, "/nameless", b"x", "data")
    put(disk, "/empty", b"x", "name")
    put(disk, "/none", b"x", "")
    is_legal(disk, "synced", {"/kept": b"abc", "/nameless": b"x", "/empty": b""})    # the second fsync_dir was for all


def test_a_file_written_and_renamed_without_any_fsync(disk):
    put(disk, "/temp", b"abc", "")
    disk.rename("/temp", "/dump")
    is_legal(disk, "synced", {})
    three = b"", b"abc", b"\0\0\0"
    is_legal(disk, "ext4", {}, *each("/temp", *three), *each("/dump", *three))
    torn = *three, b"a", b"ab", b"\0", b"\0\0"
    is_legal(disk, "torn", {}, *each("/temp", *torn), *each("/dump", *torn))
    for profile in "posix", "reorder":
        is_legal(disk, profile, {}, *each("/temp", *three), *each("/dump", *three))


def test_written_synced_renamed_without_an_fsync_of_the_directory(disk):
    put(disk, "/dump", b"old")
    put(disk, "/temp", b"new", "data")
    disk.rename("/temp", "/dump")
    both, renamed = {"/dump": b"old", "/temp": b"new"}, {"/dump": b"new"}
    is_legal(disk, "ext4", both, renamed)           # the fsync has committed the creation
    is_legal(disk, "torn", both, renamed)
    is_legal(disk, "posix", {"/dump": b"old"}, both, renamed)


def test_two_appends_with_an_fsync_between_them(disk):
    file = put(disk, "/f", b"ab")
    disk.write(file, b"cd")
    assert legal(disk, "ext4") == {
        (("/f", b"ab"),): {"cut"}, (("/f", b"abcd"),): {"cut"}, (("/f", b"ab\0\0"),): {"zeros"}}
    assert legal(disk, "torn") == {**legal(disk, "ext4"), (("/f", b"abc"),): {"cut"}, (("/f", b"ab\0"),): {"zeros"}}
    assert legal(disk, "posix") == legal(disk, "ext4")


def test_zeros_reach_to_the_end_of_the_block_and_data_may_stand_behind_them(disk):
    file = put(disk, "/f", b"s" * 4000)
    disk.write(file, b"x" * 300)
    old = b"s" * 4000
    assert legal(disk, "ext4") == {
        (("/f", old),): {"cut"}, (("/f", old + b"x" * 96),): {"cut"}, (("/f", old + b"x" * 300),): {"cut"},
        (("/f", old + bytes(96) + b"x" * 204),): {"zeros"}}


def test_a_file_ends_at_a_page_boundary_inside_a_long_write(disk):
    put(disk, "/f", b"x" * 9000, "name")
    assert {len(image[0][1]) for image, damage, _ in Space(disk, "ext4") if damage == "cut"} == {0, 4096, 8192, 9000}


def test_a_truncate_stands_in_the_journal(disk):
    file = put(disk, "/f", b"abcdef")
    disk.truncate(file, 2)
    for profile in "ext4", "torn":
        is_legal(disk, profile, {"/f": b"abcdef"}, {"/f": b"ab"})
    for profile in "posix", "reorder":              # the page may be written back, with its zeros, before the size
        is_legal(disk, profile, {"/f": b"abcdef"}, {"/f": b"ab"}, {"/f": b"ab\0\0\0\0"})


def test_what_was_written_after_a_truncate_is_not_there_without_it(disk):
    put(disk, "/f", b"abcdef")
    put(disk, "/f", b"XY", "")
    is_legal(disk, "ext4", *each("/f", b"abcdef", b"", b"XY", b"\0\0"))
    is_legal(disk, "posix", *each("/f", b"abcdef", b"", b"XY", b"\0\0", b"ab", b"XY\0\0\0\0", bytes(6)))


def test_a_write_that_was_cut_back_may_be_found_at_its_full_length(disk):
    file = put(disk, "/f", b"ab")
    disk.write(file, b"cdef")
    disk.truncate(file, 2)
    for profile in "ext4", "posix", "reorder":
        is_legal(disk, profile, *each("/f", b"ab", b"abcdef", b"ab\0\0\0\0"))
    assert legal(disk, "posix") == legal(disk, "ext4")
    assert Space(disk, "posix")[0].image == disk.image() == (("/f", b"ab"),)
    disk.write(disk.open("/f", "a"), b"xx")
    assert legal(disk, "posix") == {
        **{(("/f", content),): {"cut"} for content in (b"ab", b"abcdef", b"abcd", b"abxx")},
        **{(("/f", content),): {"zeros"} for content in (b"ab\0\0", b"ab\0\0\0\0", b"abxx\0\0")}}


@pytest.mark.parametrize("profile, unit", [("posix", 4096), ("reorder", 512)])
def test_of_a_long_write_that_was_cut_back_each_page_is_there_or_not(disk, profile, unit):
    file = put(disk, "/f", b"s" * unit)
    disk.write(file, b"x" * 2 * unit)
    disk.truncate(file, unit + 1)
    start, x, zeros = b"s" * unit, b"x" * unit, bytes(unit)
    found = {image[0][1]: damages for image, damages in legal(disk, profile).items() if len(image[0][1]) == 3 * unit}
    partly = b"x" + bytes(unit - 1)
    assert found == {start + x + x: {"cut"}, start + x + zeros: {"zeros"}, start + partly + zeros: {"zeros"},
                     start + zeros + zeros: {"zeros"}, start + zeros + x: {"holes"}, start + partly + x: {"holes"}}


def test_a_page_may_be_written_back_in_time_for_the_first_of_two_writes_and_the_size_of_the_second(disk):
    file = put(disk, "/f", b"ab")
    disk.write(file, b"AA")
    disk.write(file, b"BB")
    for profile in "posix", "reorder":
        assert legal(disk, profile) == {
            **{(("/f", content),): {"cut"} for content in (b"ab", b"abAA", b"abAABB")},
            **{(("/f", content),): {"zeros"} for content in (b"ab\0\0", b"ab\0\0\0\0", b"abAA\0\0")}}
    space = Space(disk, "posix")
    assert space.dimensions == [("size of /f", ["2 bytes", "4 bytes", "6 bytes"]),
                                ("page at 0 of /f", ["lost", "as after #5", "there"])]
    assert space.total == 9 > len({found.image for found in space})         # choices; some give the same image


def test_versions_of_a_page_are_as_many_as_operations_that_touched_it():
    disk = Disk(Clock()).instantly()
    file = put(disk, "/f", b"s" * 4000)
    for number in range(30):
        disk.write(file, b"x" * 10)                 # 9 in the first page, one in both, 20 in the second
    assert [len(words) for _, words in Space(disk, "posix").dimensions] == [32, 11, 22]
    assert [len(words) for _, words in Space(disk, "hostile", ALL).dimensions][1:-1] == [33, 12, 22]


def test_a_truncate_that_another_s_fsync_has_committed_is_certain(disk):
    file = put(disk, "/f", b"abcdef")
    disk.truncate(file, 2)
    put(disk, "/other", b"x", "data")
    is_legal(disk, "synced", {"/f": b"abcdef"})
    is_legal(disk, "ext4", {"/f": b"ab", "/other": b"x"})


def test_a_rename_between_directories_is_atomic_in_a_journal_and_two_changes_in_posix(disk):
    for directory in "/a", "/b":
        disk.mkdir(directory)
    put(disk, "/a/f", b"x")
    disk.fsync_dir("/")
    disk.rename("/a/f", "/b/f")
    empty = {"/a": None, "/b": None}
    old, new = {**empty, "/a/f": b"x"}, {**empty, "/b/f": b"x"}
    is_legal(disk, "ext4", old, new)
    is_legal(disk, "posix", old, new, empty, {**old, **new})


def test_a_directory_is_a_name_in_its_parent(disk):
    disk.mkdir("/d")
    put(disk, "/d/f", b"x", "data name")
    is_legal(disk, "ext4", {"/d": None, "/d/f": b"x"})       # fsync of the file commits what came before
    is_legal(disk, "posix", {}, {"/d": None, "/d/f": b"x"})


def test_names_of_one_directory_are_independent_in_posix_and_in_order_in_a_journal(disk):
    for name in "abc":
        disk.open(f"/{name}", "w")
    some = [{f"/{name}": b"" for name in names} for size in range(4) for names in itertools.combinations("abc", size)]
    is_legal(disk, "posix", *some)
    is_legal(disk, "ext4", {}, {"/a": b""}, {"/a": b"", "/b": b""}, some[-1])


def test_changes_of_one_name_keep_their_order(disk):
    disk.open("/f", "w")
    disk.unlink("/f")
    put(disk, "/f", b"2", "data")
    disk.rename("/f", "/g")
    is_legal(disk, "posix", {}, {"/f": b""}, {"/f": b"2"}, {"/g": b"2"})


def test_of_two_renames_onto_one_name_the_second_is_never_found_alone(disk):
    put(disk, "/t1", b"1")
    put(disk, "/t2", b"2")
    disk.rename("/t1", "/d")
    disk.rename("/t2", "/d")
    is_legal(disk, "posix", {"/t1": b"1", "/t2": b"2"}, {"/d": b"1", "/t2": b"2"}, {"/d": b"2"})


def test_a_name_cannot_mean_the_second_file_before_the_first_has_moved_away(disk):
    put(disk, "/log", b"1")
    disk.rename("/log", "/log.old")
    put(disk, "/log", b"2", "data")
    is_legal(disk, "posix", {"/log": b"1"}, {"/log.old": b"1"}, {"/log.old": b"1", "/log": b"2"})


def test_of_very_many_legal_sets_of_names_some_count_and_each_is_legal():
    disk = Disk(Clock()).instantly()
    for number in range(12):
        put(disk, f"/temp-{number}", bytes([number]), "data")
    for number in range(12):
        disk.rename(f"/temp-{number}", "/dump")
    space = Space(disk, "posix", ALL)
    assert space.is_exhaustive and 24 < space.total < 100       # of 8,191
    found = [dict(each.image) for each in space]
    assert found[0] == {} and found[-1] == {"/dump": b"\x0b"}
    for files in found:                 # the newest dump needs all before it, and their temporary files are gone
        newest = files["/dump"][0] if "/dump" in files else -1
        assert all(int(path.split("-")[1]) > newest for path in files if path != "/dump")
    assert all({"/dump": bytes([number])} in found for number in range(12))
    assert all({f"/temp-{number}": bytes([number])} in found for number in range(12))


def test_replacing_a_name_makes_the_data_durable_first(disk):
    put(disk, "/dump", b"old")
    file = put(disk, "/temp", b"new", "")
    disk.rename("/temp", "/dump")
    before = [{"/dump": b"old"}, *({"/dump": b"old", "/temp": content} for content in (b"", b"new", b"\0\0\0"))]
    is_legal(disk, "ext4", *before, {"/dump": b"new"})
    disk.write(file, b"more")
    assert {image for image in legal(disk, "ext4") if len(image) == 1} == images(
        {"/dump": b"old"}, *each("/dump", b"new", b"newmore", b"new\0\0\0\0"))


def test_that_holds_too_where_another_s_fsync_has_committed_the_rename(disk):
    put(disk, "/dump", b"old")
    put(disk, "/temp", b"new", "")
    disk.rename("/temp", "/dump")
    put(disk, "/other", b"x", "data")
    is_legal(disk, "ext4", {"/dump": b"new", "/other": b"x"})
    is_legal(disk, "synced", {"/dump": b"old"})


def test_an_fsync_commits_what_was_done_before_it_began(disk):
    file = put(disk, "/f", b"x", "")
    begun = disk.begin_fsync(file)
    disk.open("/g", "w")
    disk.end_fsync(begun)
    is_legal(disk, "ext4", {"/f": b"x"}, {"/f": b"x", "/g": b""})


def test_an_fsync_commits_names_that_are_older_where_its_file_has_changed_or_is_new(disk):
    file = put(disk, "/f", b"x")
    disk.open("/g", "w")
    disk.write(file, b"y")
    disk.fsync(file)
    is_legal(disk, "ext4", {"/f": b"xy", "/g": b""})
    disk.fsync(disk.open("/h", "w"))
    is_legal(disk, "ext4", {"/f": b"xy", "/g": b"", "/h": b""})
    is_legal(disk, "synced", {"/f": b"xy"})


def test_an_fsync_of_what_is_clean_commits_nothing(disk):
    file = put(disk, "/f", b"x")
    disk.open("/g", "w")
    disk.fsync(file)
    is_legal(disk, "ext4", {"/f": b"x"}, {"/f": b"x", "/g": b""})


def test_pages_survive_for_themselves_and_missing_ones_are_zeros(disk):
    file = put(disk, "/f", b"a" * 4096)
    disk.write(file, b"b" * 4096 + b"c" * 100)
    start, zeros = b"a" * 4096, bytes(4096)
    assert legal(disk, "posix") == {
        (("/f", start),): {"cut"},
        (("/f", start + b"b" * 4096),): {"cut"}, (("/f", start + zeros),): {"zeros"},
        (("/f", start + b"b" * 4096 + b"c" * 100),): {"cut"}, (("/f", start + b"b" * 4096 + bytes(100)),): {"zeros"},
        (("/f", start + zeros + b"c" * 100),): {"holes"}, (("/f", start + zeros + bytes(100)),): {"zeros"}}


def test_sectors_survive_for_themselves(disk):
    file = put(disk, "/f", b"")
    disk.write(file, b"a" * 512 + b"b" * 512)
    a, b, zeros = b"a" * 512, b"b" * 512, bytes(512)
    assert legal(disk, "reorder") == {
        (("/f", b""),): {"cut"}, (("/f", a + b),): {"cut"}, (("/f", zeros + b),): {"holes"},
        (("/f", a + zeros),): {"zeros"}, (("/f", zeros + zeros),): {"zeros"}}


def test_a_disk_that_lied_may_have_lost_what_was_synced_and_bits_rot(disk):
    disk = Disk.of((("/f", b"ab"),), Clock())
    file = disk.open("/f", "a")
    for data in b"c", b"d":
        disk.write(file, data)
        disk.fsync(file)
    found = legal(disk, "hostile")
    assert set(itertools.chain(*found.values())) == {"rot"}
    contents = {image[0][1] for image in found}
    healthy = {b"ab", b"abc", b"abcd", b"ab\0", b"ab\0\0", b"abc\0"}
    assert healthy < contents and {image[0][1] for image in legal(disk, "posix")} == {b"abcd"}

    def distance(one, other):
        return sum((x ^ y).bit_count() for x, y in zip(one, other, strict=True))
    assert all(min(distance(rotten, whole) for whole in healthy if len(whole) == len(rotten)) == 1
               for rotten in contents - healthy)


def fail_to_sync(disk, file):
    disk.faults.append(Fault("fsync", error="EIO"))
    with pytest.raises(OSError):
        disk.fsync(file)


def test_what_a_failed_fsync_dropped_is_absent_or_zeros_for_ever(disk):
    file = put(disk, "/f", b"ab")
    disk.write(file, b"cd")
    fail_to_sync(disk, file)
    disk.fsync(file)                                # reports success, and saves nothing
    is_legal(disk, "synced", {"/f": b"ab"})
    for profile in "ext4", "posix", "reorder":
        is_legal(disk, profile, *each("/f", b"ab", b"ab\0\0"))
        assert Space(disk, profile)[0].image == (("/f", b"ab"),)
    is_legal(disk, "torn", *each("/f", b"ab", b"ab\0", b"ab\0\0"))
    disk.write(file, b"ef")
    for profile in "ext4", "posix", "reorder":
        is_legal(disk, profile, *each("/f", b"ab", b"ab\0\0", b"ab\0\0ef", b"ab\0\0\0\0"))
    disk.fsync(file)
    for profile in HONEST:
        is_legal(disk, profile, {"/f": b"ab\0\0ef"})


def test_the_size_of_what_was_dropped_is_decided_by_a_later_truncate(disk):
    file = put(disk, "/f", b"ab")
    disk.write(file, b"cdef")
    fail_to_sync(disk, file)
    disk.truncate(file, 3)
    for profile in "ext4", "posix":
        assert {(("/f", b"ab"),), (("/f", b"ab\0\0\0\0"),), (("/f", b"ab\0"),)} <= set(legal(disk, profile))
    disk.fsync(file)
    for profile in HONEST:
        is_legal(disk, profile, {"/f": b"ab\0"})


def test_a_rename_that_forces_data_out_forces_nothing_out_that_was_dropped(disk):
    put(disk, "/dump", b"old")
    file = put(disk, "/temp", b"", "data name")
    disk.write(file, b"new")
    fail_to_sync(disk, file)
    disk.rename("/temp", "/dump")
    is_legal(disk, "ext4", *({"/dump": b"old", "/temp": content} for content in (b"", b"\0\0\0")),
             *each("/dump", b"", b"\0\0\0"))


def test_renames_torn_apart_may_put_a_directory_into_itself_and_that_ends(disk):
    disk.mkdir("/a")
    disk.mkdir("/b")
    disk.fsync_dir("/")
    disk.rename("/a", "/b/a")
    disk.rename("/b/a", "/c")
    disk.rename("/b", "/c/b")
    assert all(len(image) < 10 for image in legal(disk, "posix"))


# ---- what a Space tells

def test_a_space_names_what_is_undecided_and_each_choice(disk):
    file = put(disk, "/f", b"ab")
    disk.write(file, b"cd")
    disk.rename("/f", "/g")
    space = Space(disk, "ext4")
    assert space.dimensions == [("journal", ["as committed", "up to #6 rename /f to /g"]),
                                ("end of /g", ["nothing unsynced", "ends at 4, zeros from 2", "ends at 4"])]
    assert space.describe(0) == "journal: as committed; end of /g: nothing unsynced"
    assert repr(space).split("\n") == [
        "<Space ext4: 6 states, all",
        "  journal: 2 options, from 'as committed' to 'up to #6 rename /f to /g'",
        "  end of /g: 3 options, from 'nothing unsynced' to 'ends at 4'>"]
    assert Space(disk, "synced").describe(0) == "all is decided"
    posix = Space(disk, "posix")
    assert posix.describe(len(posix) - 1) == (
        "names in /: f, g: #6 rename /f to /g; size of /g: 4 bytes; page at 0 of /g: there")


def test_an_unknown_profile_is_refused(disk):
    with pytest.raises(ValueError, match="'sunny'.*ext4"):
        Space(disk, "sunny")


def busy(writes=6, size=300):
    """Two files under way, and names."""
    disk = Disk(Clock()).instantly()
    file = put(disk, "/log", b"synced")
    put(disk, "/dump", b"old")
    for number in range(writes):
        disk.write(file, bytes([65 + number]) * size)
    put(disk, "/temp", b"new" * size, "")
    disk.rename("/temp", "/dump")
    disk.unlink("/log")
    return disk


@pytest.mark.parametrize("profile", POWER)
def test_a_sample_begins_with_the_worst_and_the_best_and_keeps_to_its_limit(profile):
    disk = busy()
    space = Space(disk, profile, 90, exhaustive_last=False)
    assert not space.is_exhaustive and space.total > 90 == len(space) == len({space.describe(n) for n in range(90)})
    assert space[1].image == disk.image()
    if profile in ("posix", "reorder"):
        assert space[0].image == Space(disk, "synced")[0].image
    assert space[0].image == (() if profile == "hostile" else (("/dump", b"old"), ("/log", b"synced")))
    other = Space(disk, profile, 90, seed=1, exhaustive_last=False)
    assert [*space] == [*Space(disk, profile, 90, exhaustive_last=False)] != [*other]


@pytest.mark.parametrize("names, options, rows", [
    ("abcdefgh", 2, 4 * 3), ("abcdefghi", 3, 9 * 2), ("abcd", 4, 25), ("abcd", 5, 25)])
def test_a_sample_begins_with_every_two_options_of_two_dimensions_together(names, options, rows):
    disk = Disk(Clock()).instantly()
    for name in names:
        for number in range(options - 1):
            disk.unlink(f"/{name}") if number % 2 else disk.open(f"/{name}", "w")
    space = Space(disk, "posix")
    assert [len(words) for _, words in space.dimensions] == [options] * len(names)
    told = [space.describe(number).split("; ") for number in range(2 + rows)]
    for (one, left), (other, right) in itertools.combinations(space.dimensions, 2):
        for pair in itertools.product(left, right):
            assert any(f"{one}: {pair[0]}" in line and f"{other}: {pair[1]}" in line for line in told)


def test_a_sample_shows_each_option_of_a_large_dimension():
    disk = busy(writes=20)
    space = Space(disk, "ext4", 100)
    told = [space.describe(number).split("; ") for number in range(len(space))]
    for what, options in space.dimensions:
        assert all(any(f"{what}: {option}" in line for line in told) for option in options)


def test_torn_tears_the_last_write_at_every_byte_in_a_state_where_all_else_survives():
    disk = Disk(Clock()).instantly()
    file = put(disk, "/f", b"synced")
    disk.write(file, b"first")
    disk.write(file, bytes(range(1, 201)))
    put(disk, "/g", b"x", "")
    space = Space(disk, "torn")
    cut = [dict(found.image) for found in space if found.damage == "cut"]
    there = {files["/f"] for files in cut if files.get("/g") == b"x"}
    whole = disk.content("/f")
    assert {whole[:end] for end in (6, *range(11, len(whole) + 1))} <= there
    assert len(Space(disk, "torn", exhaustive_last=False)) == 64


def test_bits_rot_anywhere_and_elsewhere_after_each_operation():
    disk = Disk(Clock()).instantly()
    put(disk, "/manifest", b"m" * 10)
    file, flips = put(disk, "/log", b"l" * 1000), set()
    for _ in range(100):
        disk.write(file, b"x" * 10)
        space = Space(disk, "hostile", 4)
        assert len(space) == 4 and [found.image for found in space][1] == disk.image()
        told = [space.describe(number).rpartition("rot: ")[2] for number in range(4)]
        assert told[:2] == ["no bit", "no bit"] and told[2] != "no bit"
        whole, rotten = (dict(space[number].image) for number in (1, 2))
        assert whole != rotten and whole.keys() == rotten.keys()
        flips |= {flip for flip in told if flip != "no bit"}
    assert len(flips) > 150 and sum("/manifest" in flip for flip in flips) < 10
    places = [int(flip.split(" of byte ")[1].split()[0]) for flip in flips]
    assert all(any(low <= place < low + 200 for place in places) for low in range(0, 1600, 200))


def test_damage_is_told_of_each_file_that_is_not_just_cut(disk):
    file, other = put(disk, "/a", b"ab"), put(disk, "/b", b"x" * 4096)
    disk.write(file, b"cd")
    disk.write(other, b"y" * 4096 + b"z")
    put(disk, "/c", b"")
    start, zeros = b"x" * 4096, bytes(4096)
    kinds = {b"ab": "cut", b"abcd": "cut", b"ab\0\0": "zeros", b"": "cut", start: "cut", start + zeros: "zeros",
             start + zeros + b"z": "holes"}
    seen = set()
    for image, damage, damages in Space(disk, "posix", ALL):
        wanted = {path: kinds[content] for path, content in image if content in kinds}
        told = dict(damages)
        assert "cut" not in told.values() and all(told.get(path, "cut") == kind for path, kind in wanted.items())
        assert damage == max(["cut", *told.values()], key=("cut", "zeros", "holes").index)
        seen.add(damages)
    assert {(), (("/a", "zeros"),), (("/a", "zeros"), ("/b", "holes"))} <= seen
    assert all(found.damages == () for found in Space(disk, "synced"))
    assert Found((), "cut").damages == ()


def test_on_a_disk_that_lies_damage_is_told_of_files_that_are_not_as_they_were_seen(disk):
    file = put(disk, "/a", b"ab")
    put(disk, "/b", b"b")
    disk.write(file, b"cd")
    disk.fsync(file)
    visible, seen = dict(disk.image()), set()
    for image, damage, damages in Space(disk, "hostile", ALL):
        assert damage == "rot"
        assert damages == tuple((path, "rot") for path, content in image if content != visible[path])
        seen.add(damages)
    assert {(), (("/a", "rot"),), (("/b", "rot"),), (("/a", "rot"), ("/b", "rot"))} <= seen


def test_listings_are_the_same_in_every_process():
    digests = "[hashlib.md5(repr([*Space(busy(), profile)]).encode()).hexdigest() for profile in PROFILES]"
    code = "\n".join(["import hashlib", "from kvref.sim.clock import Clock", "from kvref.sim.disk import Disk",
                      "from kvref.sim.crashes import PROFILES, Space", inspect.getsource(put), inspect.getsource(busy),
                      f"print({digests})"])
    told = [subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
                           capture_output=True, text=True, check=True).stdout for seed in "12"]
    assert told[0] == told[1] and len(told[0]) > 100


def test_images_share_the_bytes_of_files_that_nobody_has_touched():
    disk = busy()
    put(disk, "/still", b"s" * 1000)
    put(disk, "/new", b"x", "")
    stills = {id(dict(found.image)["/still"]) for profile in ("ext4", "posix") for found in Space(disk, profile)}
    assert len(stills) == 1


# ---- properties

NAMES = ["/a", "/b", "/d/a", "/d/b"]
STEPS = st.lists(st.one_of(
    st.tuples(st.just("append"), st.sampled_from(NAMES), st.integers(1, 3)),
    st.tuples(st.just("empty"), st.sampled_from(NAMES)),
    st.tuples(st.just("truncate"), st.sampled_from(NAMES), st.integers(0, 4)),
    st.tuples(st.just("fsync"), st.sampled_from(NAMES)),
    st.tuples(st.just("fsync_dir"), st.sampled_from(["/", "/d"])),
    st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("unlink"), st.sampled_from(NAMES)),
    st.tuples(st.just("mkdir"), st.just("/d"))), max_size=9)


def perform(steps, disk=None):
    """Do them; also {path: bytes} of files that are promised: synced, their names too, and not changed since."""
    disk = disk or Disk(Clock()).instantly()
    synced, promised = {}, {}                   # synced: inode -> bytes
    made = not disk.image()
    for kind, path, *more in steps:
        try:
            if kind == "append":
                file = disk.open(path, "a")
                disk.write(file, b"xyz"[:more[0]])
            elif kind == "empty":
                promised.pop(path, None)
                synced.pop(disk.open(path, "w").inode, None)
            elif kind == "truncate":
                file = disk.open(path, "a")
                promised.pop(path, None)
                synced.pop(file.inode, None)
                disk.truncate(file, more[0])
            elif kind == "fsync":
                file = disk.open(path, "a")
                disk.fsync(file)
                synced[file.inode] = disk.content(path)
            elif kind == "fsync_dir":
                disk.fsync_dir(path)
                for name in disk.list(path):
                    whole = f"{path.rstrip('/')}/{name}"
                    number = disk._find(whole)
                    if number in synced:
                        promised[whole] = synced[number]
            else:
                promised.pop(path, None)
                if kind == "rename":
                    promised.pop(more[0], None)
                getattr(disk, kind)(path, *more)
        except OSError:
            pass
    if "/d" in disk.inodes[1].durable or not made:
        return disk, promised
    return disk, {path: content for path, content in promised.items() if not path.startswith("/d/")}


def set_of(disk, profile):
    space = Space(disk, profile, 5000)
    return {found.image for found in space}, space.is_exhaustive


@given(STEPS)
@settings(max_examples=150)
def test_profiles_contain_each_other(steps):
    disk, _ = perform(steps)
    synced, ext4, torn, posix = (set_of(disk, profile) for profile in ("synced", "ext4", "torn", "posix"))
    assert len(synced[0]) == 1
    if posix[1]:
        assert synced[0] <= posix[0]
    if torn[1]:
        assert ext4[0] <= torn[0]


@given(STEPS)
@settings(max_examples=150)
def test_what_ext4_leaves_posix_and_reorder_may_leave(steps):
    disk, _ = perform(steps)
    ext4 = set_of(disk, "ext4")[0]
    for profile in "posix", "reorder":
        found, is_exhaustive = set_of(disk, profile)
        if is_exhaustive:
            assert ext4 <= found


@given(STEPS)
@settings(max_examples=150)
def test_every_state_of_every_profile_keeps_what_was_promised(steps):
    disk, promised = perform(steps)
    for profile in HONEST:
        for number, found in enumerate(Space(disk, profile)):
            files = dict(found.image)
            for path, content in promised.items():
                assert (files.get(path) or b"").startswith(content), (profile, number)


@given(STEPS)
@settings(max_examples=150)
def test_the_visible_image_is_legal_and_nothing_unsynced_need_survive(steps):
    disk, _ = perform(steps)
    nothing = Space(disk, "synced")[0].image
    for profile in POWER:
        space = Space(disk, profile)
        found = [each.image for each in space]
        assert disk.image() in found
        if profile in ("posix", "reorder"):
            assert found[0] == nothing
        if profile == "hostile":
            assert found[0] == ()
        assert len(space) == space.total if space.is_exhaustive else len(space) < space.total
        assert all(image == tuple(sorted(image)) for image in found)


@given(STEPS, STEPS, st.data())
@settings(max_examples=60)
def test_a_computer_goes_on_from_any_state_as_from_a_fresh_disk_with_that_image(steps, more, data):
    disk, _ = perform(steps)
    profile = data.draw(st.sampled_from(PROFILES))
    state = data.draw(st.integers(0, len(disk.states(profile)) - 1))
    image = Space(disk, profile)[state].image
    before = disk.moved(Clock(), itertools.count(1)).instantly()
    disk.power_loss(profile, state)
    assert disk.image() == image == Space(disk, "synced")[0].image
    before.apply(disk.operations[-1])
    last = disk.journal.last                        # what `hostile` is seeded with
    fresh = Disk.of(image, Clock(), itertools.count(last + 1)).instantly()
    fresh.journal.last = last
    for each in disk, before, fresh:
        perform(more, each)
    for profile in PROFILES:
        spaces = [[found for found in Space(each, profile)] for each in (disk, before, fresh)]
        assert spaces[0] == spaces[1] == spaces[2]


@given(STEPS, STEPS)
@settings(max_examples=60)
def test_the_state_is_a_function_of_the_operations_whatever_fails(steps, more):
    disk = Disk(Clock()).instantly()
    disk.faults += [Fault("fsync", error="EIO", after=1), Fault("fsync", lies=True, after=2),
                    Fault("write", short=1, after=1, times=2), Fault("*", rots="*", bit=9, after=2, times=3)]
    perform([*steps, *more], disk)
    again = Disk(Clock())
    for operation in disk.operations:
        again.apply(operation)
    assert again.inodes == disk.inodes and again.journal == disk.journal
    twin = again.moved(Clock(), itertools.count(1)).instantly()
    twin.write(twin.open("/new", "w"), b"x")
    assert twin.operations[0].seq > (disk.operations[-1].seq if disk.operations else 0)
    for profile in PROFILES:
        assert [*Space(again, profile)] == [*Space(disk, profile)]
    copied = disk.copy()
    assert copied.inodes == disk.inodes and copied.journal == disk.journal
    perform(steps, copied)
    assert again.inodes == disk.inodes and again.journal == disk.journal
    assert all(not done.error or done.kind in ("write", "fsync") for done in disk.operations)
    assert LIES not in {done.error for done in disk.operations if done.kind == "write"}
