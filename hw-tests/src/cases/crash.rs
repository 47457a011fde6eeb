//! kill -9 under load: what was synced is there, the kernel comes back by itself, fsck is clean.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::case::Case;
use crate::dmesg::RECONNECT;
use crate::lab::{Lab, Target};
use crate::ledger::Progress;
use crate::wait;

const ROUNDS: u64 = 10;

/// Records per round; the kill comes after some of them.
const RECORDS: u64 = 320;

/// The time of one round with its reconnect, on a machine that is busy with other things.
const ROUND_TIMEOUT: Duration = Duration::from_secs(240);

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("crash/ten_kills_lose_nothing_that_was_synced", ten_kills)
            .on_daemon()
            .allowing(&RECONNECT),
        Case::new("crash/a_clean_restart_is_a_short_pause", clean_restart)
            .on_daemon()
            .allowing(&RECONNECT),
    ]
}

fn ten_kills(lab: &mut Lab) -> Result<()> {
    let raw = lab.volume_named("crash", "crash-raw", 512)?;
    let files = lab.volume_named("crash", "crash-files", 4096)?;
    lab.script("connect.sh", &raw, &[])?;
    lab.script("crash-prepare.sh", &files, &[])?;
    for round in 1..=ROUNDS {
        let start = Instant::now();
        one_kill(lab, &raw, &files, round).with_context(|| format!("round {round}"))?;
        println!("       {:6.2}s    kill {round}", start.elapsed().as_secs_f64());
    }
    lab.script("disconnect.sh", &raw, &[])?;
    if raw.nqn != files.nqn {
        lab.script("disconnect.sh", &files, &[])?;
    }
    Ok(())
}

fn one_kill(lab: &mut Lab, raw: &Target, files: &Target, round: u64) -> Result<()> {
    let records = RECORDS.to_string();
    let seed = round.to_string();
    let raw_nsid = raw.nsid.to_string();
    let variables = [
        ("RAW_NQN", raw.nqn.as_str()),
        ("RAW_NSID", raw_nsid.as_str()),
        ("RECORDS", records.as_str()),
        ("SEED", seed.as_str()),
    ];
    let state = lab.share().join("ledger");
    let before = Progress::load(&state)?;
    let job = lab.start("crash-round.sh", files, &variables)?;
    lab.vm()?.guest.wait_note(job, "started", ROUND_TIMEOUT)?;

    // A different moment in each round, always with both workloads in flight.
    let wanted = before.durable + RECORDS / 10 + round * 37 % (RECORDS / 2);
    wait::until(ROUND_TIMEOUT, "the ledger's progress", || {
        let there = Progress::load(&state)?.durable >= wanted;
        if !there {
            lab.vm()?.guest.assert_running(job)?;
        }
        Ok(there.then_some(()))
    })?;
    let node = lab.node("crash")?;
    node.kill()?;
    node.start()?;
    lab.finish(job, ROUND_TIMEOUT)?;
    let after = Progress::load(&state)?;
    ensure!(after.durable == before.durable + RECORDS, "{before:?} became {after:?}");
    Ok(())
}

/// SIGTERM and a new start under load: the kernel sees a pause and nothing else.
fn clean_restart(lab: &mut Lab) -> Result<()> {
    let target = lab.volume_named("crash", "crash-raw", 512)?;
    lab.script("connect.sh", &target, &[])?;
    let job = lab.start("flush-load.sh", &target, &[])?;
    lab.vm()?.guest.wait_note(job, "started", ROUND_TIMEOUT)?;
    let node = lab.node("crash")?;
    node.stop()?;
    node.start()?;
    lab.finish(job, ROUND_TIMEOUT)?;
    Ok(())
}
