//! One volume through two listeners: hosts follow what each of them says of itself.

use anyhow::{Context, Result};

use crate::case::Case;
use crate::lab::{Lab, SCRIPT_TIMEOUT, TWO_LISTENERS, Target};
use crate::node;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new("paths/inaccessible_listeners_cost_no_io_error", inaccessible).on_daemon()]
}

/// Closes one listener and then the other while fio writes and verifies through both.
fn inaccessible(lab: &mut Lab) -> Result<()> {
    let target = lab.volume_named(TWO_LISTENERS, "two-paths", 4096)?;
    let second = lab.node(TWO_LISTENERS)?.endpoints.second_port.context("one listener only")?;
    let job = lab.start("paths.sh", &target, &[("SECOND", &second.to_string())])?;
    let set = |lab: &mut Lab, port: u16, state: &str| set(lab, &target, port, state);
    lab.wait_note(job, "running")?;
    set(lab, target.port, "inaccessible")?;
    lab.wait_note(job, "on-second")?;
    set(lab, target.port, "non-optimized")?;
    lab.wait_note(job, "first-back")?;
    set(lab, second, "inaccessible")?;
    lab.wait_note(job, "on-first")?;
    set(lab, target.port, "optimized")?;
    set(lab, second, "optimized")?;
    lab.finish(job, SCRIPT_TIMEOUT).map(drop)
}

fn set(lab: &mut Lab, target: &Target, port: u16, state: &str) -> Result<()> {
    let listener = format!("{}:{port}", node::ADDRESS);
    lab.node(TWO_LISTENERS)?.cli().set_ana_state(&target.volume, state, &listener)
}
