//! A few seeds, and the promise that a seed is a history. `make test` runs more of them, optimised.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use sim::{Plan, run};

const SIM: &str = "cargo run -p sim --profile sim --";

fn small(seed: u64) -> Plan {
    Plan::new(seed).small()
}

fn check(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        println!("seed {seed}");
        if let Err(failure) = run(&small(seed)) {
            panic!("{failure}\nreproduce: {SIM} --seed {seed} --small");
        }
    }
}

#[test]
fn same_seed_same_history() {
    let (first, second) = (run(&small(8)).unwrap(), run(&small(8)).unwrap());
    assert_eq!(first, second);
    assert_ne!(run(&small(3)).unwrap().hash, first.hash);
}

#[test]
fn network_faults_alone_lose_nothing() {
    if let Err(failure) = run(&small(2).in_ram()) {
        panic!("{failure}\nreproduce: {SIM} --seed 2 --small --ram");
    }
}

#[test]
fn crashes_lose_nothing_that_was_acknowledged() {
    check(100..103);
}
