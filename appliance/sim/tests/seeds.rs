//! A few seeds, and the promise that a seed is a history. `make test` runs more of them, optimised.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use sim::{Options, Profile, run_seed, run_seeds};

const SIM: &str = "cargo run -p sim --profile sim --";

const NODE: Options = Options { profile: Profile::Node, errors: false, ram: false, trace: false };
const BARE: Options = Options { profile: Profile::Bare, ..NODE };

#[test]
fn same_seed_same_history() {
    let (first, second) = (run_seed(8, &NODE).unwrap(), run_seed(8, &NODE).unwrap());
    assert_eq!(first, second);
    assert_ne!(run_seed(3, &NODE).unwrap().hash, first.hash);
}

#[test]
fn number_of_jobs_does_not_change_the_history() {
    let alone = run_seeds(1..4, 1, &BARE, |_| {}).unwrap();
    let together = run_seeds(1..4, 3, &BARE, |_| {}).unwrap();
    assert_eq!(alone, together);
}

#[test]
fn network_faults_alone_lose_nothing() {
    if let Err(failure) = run_seed(2, &Options { ram: true, ..NODE }) {
        panic!("{failure}\nreproduce: {SIM} --seed 2 --node --ram");
    }
}

#[test]
fn crashes_of_nodes_lose_nothing_that_was_acknowledged() {
    for seed in 100..103 {
        if let Err(failure) = run_seed(seed, &NODE) {
            panic!("{failure}\nreproduce: {SIM} --seed {seed} --node");
        }
    }
}

#[test]
fn crashes_of_bare_engines_lose_nothing_that_was_acknowledged() {
    for seed in 100..105 {
        if let Err(failure) = run_seed(seed, &BARE) {
            panic!("{failure}\nreproduce: {SIM} --seed {seed} --bare");
        }
    }
}
