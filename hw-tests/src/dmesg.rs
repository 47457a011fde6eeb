//! What the guest's kernel may say. A target that a stock kernel accepts causes no complaint.

/// Lines about nvme that are no complaints.
const QUIET: [&str; 8] = [
    "creating ",
    "mapped ",
    "new ctrl: ",
    "Removing ctrl: ",
    "rescanning namespaces",
    "resetting controller",
    "detected capacity change",
    // A discovery log page that changed while a host watches it.
    "discovery log page",
];

/// Phrases that are complaints whoever says them.
const LOUD: [&str; 9] = [
    "I/O error",
    "medium error",
    "EXT4-fs error",
    "EXT4-fs warning",
    "Corruption",
    "BUG:",
    "WARNING:",
    "Call Trace",
    "blocked for more than",
];

/// What the kernel says when a target dies under it and comes back.
pub(crate) const RECONNECT: [&str; 15] = [
    "starting error recovery",
    "Reconnecting in ",
    "Successfully reconnected",
    "reconnected (attempt",
    "Failed reconnect attempt",
    "failed to connect socket",
    "socket state",
    "receive failed",
    "failed to receive icresp",
    "Connect command failed",
    "failed to send request",
    "queue connect failed",
    "failed nvme_keep_alive",
    "keep-alive failed",
    "Property Set error",
];

/// What the stand-in cannot do: zero a range of a file on tmpfs.
pub(crate) const STAND_IN: [&str; 2] = ["operation not supported error", "I/O Cmd(0x8)"];

/// The messages that a case which allows `allowed` must not cause.
pub(crate) fn complaints(messages: &[String], allowed: &[&str]) -> Vec<String> {
    messages
        .iter()
        .filter(|message| is_complaint(message))
        .filter(|message| !allowed.iter().any(|phrase| message.contains(phrase)))
        .cloned()
        .collect()
}

fn is_complaint(message: &str) -> bool {
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    // The stand-in target logs its own side.
    let about_nvme = message.starts_with("nvme") && !message.starts_with("nvmet");
    says(&LOUD) || (about_nvme && !says(&QUIET))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(message: &str, allowed: &[&str]) -> usize {
        complaints(&[message.to_owned()], allowed).len()
    }

    #[test]
    fn ordinary_life_is_no_complaint() {
        for message in [
            "nvme nvme0: creating 2 I/O queues.",
            "nvme nvme0: mapped 2/0/0 default/read/poll queues.",
            "nvme nvme0: new ctrl: NQN \"nqn.x\", addr 127.0.0.2:1",
            "nvme nvme0: Removing ctrl: NQN \"nqn.x\"",
            "nvme0n1: detected capacity change from 1 to 2",
            "EXT4-fs (nvme0n1): mounted filesystem",
            "random: crng init done",
        ] {
            assert_eq!(found(message, &[]), 0, "{message}");
        }
    }

    #[test]
    fn a_line_nobody_expects_is_a_complaint() {
        for message in [
            "nvme nvme0: I/O tag 1 timeout",
            "nvme nvme0: starting error recovery",
            "blk_update_request: I/O error, dev nvme0n1",
            "WARNING: CPU: 0 PID: 1 at x",
        ] {
            assert_eq!(found(message, &[]), 1, "{message}");
        }
    }

    #[test]
    fn a_case_may_expect_a_reconnect() {
        assert_eq!(found("nvme nvme0: starting error recovery", &RECONNECT), 0);
        assert_eq!(found("nvme nvme0: Reconnecting in 1 seconds...", &RECONNECT), 0);
        assert_eq!(found("I/O error, dev nvme0n1, sector 0", &RECONNECT), 1);
    }
}
