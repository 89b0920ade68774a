import random

from pipeline.estimate import Estimate, Timing, estimate_rest
from pipeline.progress import BatchProgress
from registry_sync.record import Outcome


def estimate(expected_s, finished=(), running_s=None, waiting=None, workers=1):
    running_s = running_s or {}
    waiting = [name for name in expected_s if name not in running_s] if waiting is None else waiting
    return estimate_rest(
        expected_s=expected_s, finished=finished, running_s=running_s, waiting=waiting, workers=workers
    )


def test_while_nothing_is_known_there_is_no_estimate():
    assert estimate({"a": None, "b": None}, running_s={"a": 3.0}) is None


def test_where_only_a_part_is_known_the_estimate_is_open_to_above():
    found = estimate({"a": 100.0, "b": None})
    assert found.high_s is None
    assert 80 <= found.low_s <= 100


def test_past_durations_make_a_range_around_their_sum():
    found = estimate({"a": 100.0, "b": 200.0})
    assert 240 <= found.low_s < 300 < found.high_s <= 400


def test_two_workers_halve_the_time_and_a_long_export_bounds_it():
    exports = dict.fromkeys("abcd", 100.0)
    one, two = estimate(exports), estimate(exports, workers=2)
    assert two == Estimate(one.low_s / 2, one.high_s / 2)
    alone = estimate({"long": 300.0})
    assert estimate({"long": 300.0, **dict.fromkeys("abc", 100.0)}, workers=2) == alone


def test_a_worker_takes_the_next_export_when_it_is_free_not_in_turn():
    # Dealt out in turn, the second worker would end at 3 + 3; the first one is free at 2.
    exact = [Timing(1.0, 1.0)] * 1000
    assert estimate({"a": 2.0, "b": 3.0, "c": 2.0, "d": 2.0}, exact, workers=2) == Estimate(5.0, 5.0)


def test_a_machine_that_is_slower_today_shows_in_the_estimate():
    slow = [Timing(30.0, 10.0)] * 20
    found = estimate({"a": 100.0}, slow)
    assert found == Estimate(300.0, 300.0)


def test_an_export_that_was_never_timed_takes_what_those_of_this_batch_took():
    found = estimate({"a": None}, [Timing(40.0), Timing(50.0), Timing(60.0)])
    assert 25 <= found.low_s <= 50 <= found.high_s <= 100


def test_one_finished_export_is_not_taken_for_a_certainty():
    found = estimate({"a": None}, [Timing(40.0)])
    assert found.low_s < 40 < found.high_s


def test_what_runs_has_its_elapsed_time_behind_it():
    exact = [Timing(1.0, 1.0)] * 1000
    assert estimate({"a": 100.0}, exact, {"a": 60.0}) == Estimate(40.0, 40.0)


def test_an_export_over_its_time_may_go_on_for_as_long_as_it_is_over():
    exact = [Timing(1.0, 1.0)] * 1000
    assert estimate({"a": 100.0}, exact, {"a": 150.0}) == Estimate(0.0, 50.0)


def test_a_running_export_of_which_nothing_is_known_leaves_the_estimate_open():
    exact = [Timing(1.0, 1.0)] * 3
    found = estimate_rest(
        expected_s={"new": None, "old": 10.0}, finished=[], running_s={"new": 1.0}, waiting=["old"], workers=2
    )
    assert found.high_s is None
    both = estimate({"new": None, "old": 10.0}, exact, {"new": 0.0}, ["old"], workers=2)
    assert both.high_s is not None


def test_of_many_simulated_batches_most_end_within_the_range():
    # Each machine has its own speed today, each export its own noise.
    source = random.Random(0)
    inside = 0
    for _ in range(200):
        usual = {f"e{number}": source.lognormvariate(2, 0.8) for number in range(20)}
        speed = source.lognormvariate(0, 0.15)
        real = {name: usual_s * speed * source.lognormvariate(0, 0.15) for name, usual_s in usual.items()}
        finished = [Timing(real[f"e{number}"], usual[f"e{number}"]) for number in range(8)]
        waiting = [f"e{number}" for number in range(8, 20)]
        found = estimate(usual, finished, {}, waiting, workers=2)
        exact = [Timing(1.0, 1.0)] * 1000
        truth = estimate(real, exact, {}, waiting, workers=2)
        inside += found.low_s <= truth.low_s <= found.high_s
    assert inside > 120


def make_progress(expected_s, **settings):
    return BatchProgress(len(expected_s), expected_s, workers=1, began_s=0.0, **settings)


def test_an_estimate_grows_shorter_between_two_looks():
    progress = make_progress({f"e{number}": 100.0 for number in range(1000)})
    first = progress.estimate(0.0)
    again = progress.estimate(0.5)
    assert (first.low_s - again.low_s, first.high_s - again.high_s) == (0.5, 0.5)


def test_only_what_passed_tells_of_the_time_that_others_take():
    progress = make_progress(dict.fromkeys("ab"))
    progress.start("a", 0.0)
    progress.end("a", Outcome.failed, 1.0)
    assert progress.estimate(1.0) is None


def test_when_all_has_ended_nothing_is_left():
    progress = make_progress({"a": 100.0})
    progress.start("a", 0.0)
    progress.estimate(0.0)
    progress.end("a", Outcome.passed, 0.1)
    assert progress.estimate(0.2) == Estimate(0.0, 0.0)


def test_a_retried_export_waits_again_and_counts_its_tries():
    progress = make_progress({"a": 100.0})
    assert progress.start("a", 0.0).num_tries == 1
    progress.retry("a")
    assert (list(progress.waiting), progress.num_ended) == (["a"], 0)
    assert progress.start("a", 5.0).num_tries == 2
    progress.end("a", Outcome.passed, 9.0)
    assert (progress.num_ended, progress.running, progress.waiting) == (1, {}, {})
