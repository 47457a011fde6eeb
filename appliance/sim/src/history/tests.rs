//! The register checker, one rule at a time.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;

fn history(writes: &[(u64, Moment, Option<Moment>)]) -> History {
    let mut history = History::default();
    for &(value, began, ended) in writes {
        history.begin(0, 0, value, value, began);
        if let Some(at) = ended {
            history.acknowledge(0, 0, value, at, 0);
        }
    }
    history
}

#[test]
fn acknowledged_write_must_be_read() {
    let mut history = history(&[(1, 1, Some(2)), (2, 3, Some(4))]);
    assert!(history.read(0, 0, 2, 5, 6).is_ok());
    assert!(history.read(0, 0, 1, 5, 6).is_err());
    assert!(history.read(0, 0, 0, 5, 6).is_err());
    assert!(history.read(0, 0, 9, 5, 6).is_err());
}

#[test]
fn concurrent_write_may_be_read_or_not() {
    let mut history = history(&[(1, 1, Some(2)), (2, 3, None)]);
    assert!(history.read(0, 0, 1, 4, 5).is_ok());
    assert!(history.read(0, 0, 2, 6, 7).is_ok());
    assert!(history.read(0, 0, 1, 8, 9).is_err(), "it was read before, so it has happened");
}

#[test]
fn order_of_concurrent_writes_is_settled_by_the_first_read() {
    let mut history = History::default();
    history.begin(0, 0, 1, 1, 1);
    history.begin(0, 0, 2, 2, 2);
    history.acknowledge(0, 0, 1, 3, 0);
    history.acknowledge(0, 0, 2, 4, 0);
    assert!(history.read(0, 0, 1, 5, 6).is_ok());
    assert!(history.read(0, 0, 2, 7, 8).is_err(), "the other one was first");
}

#[test]
fn unanswered_write_does_not_come_true_after_a_crash_and_a_newer_write() {
    let mut history = history(&[(1, 1, None)]);
    history.crash(2);
    history.begin(0, 0, 2, 2, 3);
    history.acknowledge(0, 0, 2, 4, 0);
    assert!(history.read(0, 0, 1, 5, 6).is_err());
    assert!(history.read(0, 0, 2, 5, 6).is_ok());
}

#[test]
fn unanswered_write_that_was_not_there_after_a_crash_never_comes() {
    let mut history = history(&[(1, 1, Some(2)), (2, 3, None)]);
    history.crash(4);
    assert!(history.read(0, 0, 1, 5, 6).is_ok());
    assert!(history.read(0, 0, 2, 7, 8).is_err());
}

#[test]
fn atomic_write_survives_a_crash_whole_or_not_at_all() {
    for first in [0, 2] {
        let mut history = History::default();
        for block in 0..2 {
            history.begin(0, block, 2, 2, 3);
        }
        history.atomic(0, 0, 2, 2);
        history.crash(4);
        assert!(history.read(0, 0, first, 5, 6).is_ok());
        assert!(history.read(0, 1, 2 - first, 7, 8).is_err());
        assert!(history.read(0, 1, first, 7, 8).is_ok());
    }
}

#[test]
fn old_read_may_return_what_was_replaced_meanwhile() {
    let mut history = history(&[(1, 1, Some(2))]);
    history.begin(0, 0, 2, 2, 4);
    history.acknowledge(0, 0, 2, 5, 3);
    assert!(history.read(0, 0, 1, 3, 6).is_ok());
}

#[test]
fn snapshot_is_of_one_moment_for_all_its_blocks() {
    let mut history = History::default();
    history.begin(0, 0, 1, 1, 1);
    history.acknowledge(0, 0, 1, 2, 0);
    history.begin(0, 1, 3, 3, 3);
    history.acknowledge(0, 1, 3, 4, 0);
    history.freeze(&[(7, 0)], 0, 5);
    assert!(history.read_frozen(7, 1, 3).is_ok());
    assert!(history.read_frozen(7, 0, 0).is_err(), "the later write is there");
    assert!(history.read_frozen(7, 0, 1).is_ok());
}

#[test]
fn snapshot_holds_what_was_acknowledged_before_and_nothing_from_after() {
    let mut history = history(&[(1, 1, Some(2))]);
    history.freeze(&[(7, 0)], 3, 4);
    history.begin(0, 0, 5, 5, 5);
    history.acknowledge(0, 0, 5, 6, 0);
    assert!(history.read_frozen(7, 0, 0).is_err());
    assert!(history.read_frozen(7, 0, 5).is_err());
    assert!(history.read_frozen(7, 0, 1).is_ok());
    assert!(history.read_frozen(7, 9, 0).is_ok());
    assert!(history.read_frozen(7, 9, 1).is_err());
}

/// A block with a value, which two compare-and-writes expect at the same time.
fn swaps() -> History {
    let mut history = history(&[(1, 1, Some(2))]);
    history.begin(0, 0, 3, 3, 3);
    history.begin(0, 0, 4, 4, 4);
    history.swapped(0, 0, 3, 1, 5).unwrap();
    history.acknowledge(0, 0, 3, 5, 0);
    history
}

#[test]
fn one_of_two_competing_compare_and_writes_succeeds() {
    let mut history = swaps();
    assert!(history.swapped(0, 0, 4, 1, 6).is_err());
    history.refuse(0, 0, 4).unwrap();
    assert!(history.read(0, 0, 4, 7, 8).is_err());
    assert!(history.read(0, 0, 3, 7, 8).is_ok());
}

#[test]
fn write_beside_a_compare_and_write_comes_after_it() {
    let mut history = swaps();
    history.acknowledge(0, 0, 4, 6, 0);
    assert!(history.read(0, 0, 3, 7, 8).is_err(), "it came between comparing and writing");
    assert!(history.read(0, 0, 4, 7, 8).is_ok());
}

#[test]
fn refused_write_was_not_seen() {
    let mut history = history(&[(1, 1, None)]);
    assert!(history.read(0, 0, 1, 2, 3).is_ok());
    assert!(history.refuse(0, 0, 1).is_err());
}

#[test]
fn snapshots_are_compared_by_the_writes_that_they_hold() {
    let mut history = history(&[(1, 1, Some(2))]);
    history.freeze(&[(7, 0)], 3, 4);
    history.begin(0, 1, 5, 5, 5);
    history.acknowledge(0, 1, 5, 6, 0);
    history.begin(0, 2, 7, 7, 7);
    history.freeze(&[(8, 0)], 8, 9);
    let compared = |block| history.compare(7, 8, block);
    assert_eq!(compared(0), Compared::Same);
    assert_eq!(compared(1), Compared::Differs);
    assert_eq!(compared(2), Compared::Unsure);
    assert_eq!(compared(3), Compared::Same);
}

#[test]
fn clone_starts_as_its_snapshot_and_restore_brings_it_back() {
    let mut history = history(&[(1, 1, Some(2))]);
    history.freeze(&[(7, 0)], 3, 4);
    history.clone_of(2, 7);
    assert!(history.read(2, 0, 1, 5, 6).is_ok());
    assert!(history.read(2, 0, 0, 5, 6).is_err());
    history.begin(0, 0, 8, 8, 8);
    history.acknowledge(0, 0, 8, 9, 0);
    history.begin_value(0, 0, 10, Value::Of(7), 10);
    history.acknowledge(0, 0, 10, 11, 0);
    assert!(history.read(0, 0, 8, 12, 13).is_err());
    assert!(history.read(0, 0, 1, 12, 13).is_ok());
}
