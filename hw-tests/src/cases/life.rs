//! Connections and volumes change while a host looks on.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::case::Case;
use crate::lab::{Lab, VOLUME_BYTES};
use crate::wait;

const GROWN_BYTES: u64 = 2 * VOLUME_BYTES;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("life/disconnect_reset_and_reconnect_keep_the_data", |lab| {
            let target = lab.volume(512)?;
            lab.script("reconnect.sh", &target, &[]).map(drop)
        }),
        Case::new("life/an_idle_connection_is_kept_alive", |lab| {
            let target = lab.volume(512)?;
            lab.script("idle.sh", &target, &[]).map(drop)
        }),
        Case::new("life/a_grown_volume_is_seen_without_reconnect", grow),
        Case::new("life/sessions_are_listed_while_they_last", sessions).on_daemon(),
    ]
}

fn grow(lab: &mut Lab) -> Result<()> {
    let target = lab.volume(4096)?;
    lab.script("connect.sh", &target, &[])?;
    lab.resize(&target, GROWN_BYTES)?;
    lab.script("grown.sh", &target, &[("BYTES", &GROWN_BYTES.to_string())])?;
    lab.script("disconnect.sh", &target, &[]).map(drop)
}

fn sessions(lab: &mut Lab) -> Result<()> {
    let target = lab.volume(512)?;
    lab.script("connect.sh", &target, &[])?;
    let during = lab.node("main")?.cli().session_count()?;
    lab.script("disconnect.sh", &target, &[])?;
    ensure!(during >= 1, "no session is listed while the guest is connected");
    wait::until(Duration::from_secs(10), "no session after the disconnect", || {
        Ok((lab.node("main")?.cli().session_count()? == 0).then_some(()))
    })
}
