//! A host finds the target, connects, and sees what was exported.

use anyhow::{Context, Result, ensure};

use crate::case::Case;
use crate::lab::{Lab, VOLUME_BYTES};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("discover/discovery_port_names_the_subsystem", |lab| {
            let target = lab.volume(512)?;
            discover(lab, target.discovery_port)
        }),
        Case::new("discover/io_port_names_the_subsystem", |lab| {
            let target = lab.volume(512)?;
            discover(lab, target.port)
        }),
        Case::new("discover/connect_all_connects_and_lists", |lab| {
            let target = lab.volume(512)?;
            lab.script("connect-all.sh", &target, &[]).map(drop)
        }),
        Case::new("identify/512_byte_blocks_and_stable_names", |lab| identify(lab, 512)),
        Case::new("identify/4096_byte_blocks_and_stable_names", |lab| identify(lab, 4096)),
    ]
}

fn discover(lab: &mut Lab, port: u16) -> Result<()> {
    let target = lab.volume(512)?;
    lab.script("discover.sh", &target, &[("AT", &port.to_string())]).map(drop)
}

/// Identifies twice: the names must be there and must not change from one connection to the next.
fn identify(lab: &mut Lab, block_size: u32) -> Result<()> {
    let target = lab.volume(block_size)?;
    let block_size = block_size.to_string();
    let bytes = VOLUME_BYTES.to_string();
    let mut names = Vec::new();
    for round in ["1", "2"] {
        let variables =
            [("BLOCK_SIZE", block_size.as_str()), ("BYTES", bytes.as_str()), ("ROUND", round)];
        let log = lab.script("identify.sh", &target, &variables)?;
        let line = log.lines().find(|line| line.starts_with("IDENTITY ")).context("no identity")?;
        names.push(line.to_owned());
    }
    ensure!(names[0] == names[1], "the names changed: {names:?}");
    let worth = |text: &str| text.chars().any(|c| c.is_ascii_hexdigit() && c != '0');
    let nguid = names[0].split_whitespace().find_map(|word| word.strip_prefix("nguid="));
    let uuid = names[0].split_whitespace().find_map(|word| word.strip_prefix("uuid="));
    let named = nguid.is_some_and(worth) || uuid.is_some_and(worth);
    ensure!(named, "neither NGUID nor UUID: {}", names[0]);
    Ok(())
}
