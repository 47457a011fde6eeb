//! Namespaces and exports change while a host is connected.

use anyhow::Result;

use crate::case::Case;
use crate::lab::{HOST_NQN, Lab, SCRIPT_TIMEOUT, VOLUME_BYTES};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("namespaces/come_grow_and_go_under_load", come_and_go).on_daemon(),
        Case::new("namespaces/persistent_discovery_hears_of_a_new_export", heard).on_daemon(),
    ]
}

/// A second volume enters and leaves the subsystem while fio writes to the first.
fn come_and_go(lab: &mut Lab) -> Result<()> {
    let target = lab.volume(4096)?;
    lab.bare_volume(&target, "hot")?;
    let grown = VOLUME_BYTES * 2;
    let job = lab.start("namespaces.sh", &target, &[("BYTES", &grown.to_string())])?;
    lab.wait_note(job, "running")?;
    let cli = lab.node("main")?.cli();
    cli.export_into("hot", &target.nqn, HOST_NQN)?;
    lab.wait_note(job, "came")?;
    cli.volume_resize("hot", grown)?;
    lab.wait_note(job, "grew")?;
    cli.host_remove("hot", HOST_NQN)?;
    lab.wait_note(job, "detached")?;
    cli.host_add("hot", HOST_NQN)?;
    lab.wait_note(job, "attached")?;
    cli.export_remove("hot")?;
    lab.finish(job, SCRIPT_TIMEOUT).map(drop)
}

/// The kernel tells of the event that the discovery controller sent, and only for what is new to
/// this host.
fn heard(lab: &mut Lab) -> Result<()> {
    let target = lab.volume(4096)?;
    lab.bare_volume(&target, "news")?;
    let job = lab.start("persistent.sh", &target, &[])?;
    lab.wait_note(job, "listening")?;
    let cli = lab.node("main")?.cli();
    cli.export_add("news", Some("nqn.2014-08.com.example:somebody-else"))?;
    lab.wait_note(job, "quiet")?;
    cli.host_add("news", HOST_NQN)?;
    lab.finish(job, SCRIPT_TIMEOUT)?;
    cli.export_remove("news")
}
