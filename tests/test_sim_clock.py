"""The simulated clock: time moves only when it is pushed, and exactly as far."""

from datetime import datetime, timezone

from kvref.sim.clock import Clock, Cost


def test_begins_with_the_new_year_of_2026():
    clock = Clock()
    assert datetime.fromtimestamp(clock.time_us() / 1e6, timezone.utc) == datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert clock.monotonic_us() == 0


def test_sleep_moves_both_clocks():
    clock = Clock()
    before = clock.time_us()
    clock.sleep(1500)
    assert (clock.monotonic_us(), clock.time_us() - before) == (1500, 1500)


def test_jump_moves_only_the_wall_clock_in_either_direction():
    clock = Clock()
    before = clock.time_us()
    clock.jump(2000)
    assert (clock.monotonic_us(), clock.time_us() - before) == (0, 2_000_000)
    clock.jump(-5000)
    assert clock.time_us() - before == -3_000_000


def test_a_command_costs_10_us_and_10_ns_an_element():
    clock = Clock()
    assert clock.tick() == 10_000
    clock.work(1_000_000)
    assert clock.tick() == 10_020_000


def test_nanoseconds_of_small_commands_add_up_exactly():
    clock = Clock(Cost(0, 10))
    for _ in range(99):
        clock.work(1)
    assert clock.monotonic_us() == 0
    clock.work(1)
    assert clock.monotonic_us() == 1
    for _ in range(3):
        clock.work(50)
        clock.sleep(1)
    assert clock.monotonic_us() == 5       # 1 + 3 + 1.5: sleeping does not round


def test_commands_may_be_free():
    clock = Clock(Cost(0, 0))
    clock.work(10**9)
    assert clock.tick() == 0


def test_events_happen_on_the_way_in_order_of_time_then_of_asking():
    clock, seen = Clock(), []
    for us, name in ((30, "c"), (10, "a"), (10, "b"), (99, "late")):
        clock.at(us, lambda name=name: seen.append((name, clock.monotonic_us())))
    clock.sleep(50)
    assert seen == [("a", 10), ("b", 10), ("c", 30)]
    assert (clock.monotonic_us(), clock.next_event_us()) == (50, 99)


def test_an_event_may_schedule_another_that_falls_into_the_same_sleep():
    clock, seen = Clock(), []
    clock.after(10, lambda: clock.after(10, lambda: seen.append(clock.monotonic_us())))
    clock.sleep(100)
    assert seen == [20]


def test_an_event_of_the_past_happens_now_and_time_does_not_go_back():
    clock, seen = Clock(), []
    clock.sleep(100)
    clock.at(5, lambda: seen.append(clock.monotonic_us()))
    clock.advance_to(100)
    assert seen == [100]


def test_forgotten_events_do_not_happen():
    clock, seen = Clock(), []
    clock.after(1, lambda: seen.append(1))
    clock.forget_events()
    clock.sleep(10)
    assert seen == [] and clock.next_event_us() is None
