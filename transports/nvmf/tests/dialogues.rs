//! Scripted dialogues: each block of `testdata/*.pdu` is a test of what the target says to whom.
//!
//! The format is described in `testdata/README.md`. A block names the requirement that it proves.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "dialogue/mod.rs"]
mod dialogue;

fn play_file(name: &str, text: &str) {
    for block in dialogue::blocks(text) {
        dialogue::play(name, &block);
    }
}

#[test]
fn setup_dialogues_hold() {
    play_file("setup.pdu", include_str!("../testdata/setup.pdu"));
}

#[test]
fn framing_dialogues_hold() {
    play_file("framing.pdu", include_str!("../testdata/framing.pdu"));
}

#[test]
fn admin_dialogues_hold() {
    play_file("admin.pdu", include_str!("../testdata/admin.pdu"));
}

#[test]
fn io_dialogues_hold() {
    play_file("io.pdu", include_str!("../testdata/io.pdu"));
}

#[test]
fn copy_and_verify_dialogues_hold() {
    play_file("copy.pdu", include_str!("../testdata/copy.pdu"));
}

#[test]
fn fused_dialogues_hold() {
    play_file("fused.pdu", include_str!("../testdata/fused.pdu"));
}

#[test]
fn reservation_dialogues_hold() {
    play_file("reservation.pdu", include_str!("../testdata/reservation.pdu"));
}

#[test]
fn authentication_dialogues_hold() {
    play_file("authentication.pdu", include_str!("../testdata/authentication.pdu"));
}

#[test]
fn discovery_dialogues_hold() {
    play_file("discovery.pdu", include_str!("../testdata/discovery.pdu"));
}

#[test]
fn control_dialogues_hold() {
    play_file("control.pdu", include_str!("../testdata/control.pdu"));
}

#[test]
fn life_and_death_dialogues_hold() {
    play_file("life.pdu", include_str!("../testdata/life.pdu"));
}

#[test]
fn asymmetric_access_dialogues_hold() {
    play_file("ana.pdu", include_str!("../testdata/ana.pdu"));
}

#[test]
fn namespace_dialogues_hold() {
    play_file("namespaces.pdu", include_str!("../testdata/namespaces.pdu"));
}
