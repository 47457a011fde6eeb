//! Commands, and how they travel in the buffer of a request.

use crate::table::{Host, Type};

/// Bytes of a command in a buffer.
pub const COMMAND_LEN: usize = 64;

/// What a host wants, or the node itself, where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Become a registrant.
    Register {
        /// With this key.
        new: u64,
    },
    /// Be one no longer.
    Unregister {
        /// The key it has; `None` to do without.
        key: Option<u64>,
    },
    /// Have another key.
    Replace {
        /// The key it has; `None` to do without.
        key: Option<u64>,
        /// The key from now on.
        new: u64,
    },
    /// Hold the reservation.
    Acquire {
        /// The key it has.
        key: u64,
        /// What kind of reservation.
        kind: Type,
    },
    /// Remove registrants by their key, and take the reservation if one of them holds it.
    Preempt {
        /// The key it has.
        key: u64,
        /// What kind of reservation, if it is taken.
        kind: Type,
        /// The key of those to remove; zero for all others, when all hold it.
        victim: u64,
        /// Nothing of theirs is under way any more when this is answered.
        abort: bool,
    },
    /// Hold it no longer.
    Release {
        /// The key it has.
        key: u64,
        /// The type that it thinks it holds.
        kind: Type,
    },
    /// Remove everybody, itself included.
    Clear {
        /// The key it has.
        key: u64,
    },
    /// Say what there is: the answer is in the buffer.
    Report,
    /// Only change whether it persists.
    Persist,
    /// The node: remove everybody.
    Evict,
}

/// Something to be done with the reservation of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Who asks; meaningless for [`Action::Evict`].
    pub host: Host,
    /// What for.
    pub action: Action,
    /// Whether registrations and reservation shall outlive a restart, if that changes.
    pub persist: Option<bool>,
}

impl Command {
    /// Whether it is answered only when nothing of those it removes is under way any more.
    pub fn waits_for_victims(&self) -> bool {
        matches!(self.action, Action::Preempt { abort: true, .. } | Action::Evict)
    }

    /// Writes it to the front of `buffer`.
    ///
    /// # Panics
    /// When that is shorter than [`COMMAND_LEN`].
    pub fn encode(&self, buffer: &mut [u8]) {
        let (verb, kind, key, other) = match self.action {
            Action::Register { new } => (1, 0, Some(0), new),
            Action::Unregister { key } => (2, 0, key, 0),
            Action::Replace { key, new } => (3, 0, key, new),
            Action::Acquire { key, kind } => (4, kind as u8, Some(key), 0),
            Action::Preempt { key, kind, victim, abort: false } => {
                (5, kind as u8, Some(key), victim)
            }
            Action::Preempt { key, kind, victim, abort: true } => {
                (6, kind as u8, Some(key), victim)
            }
            Action::Release { key, kind } => (7, kind as u8, Some(key), 0),
            Action::Clear { key } => (8, 0, Some(key), 0),
            Action::Report => (9, 0, Some(0), 0),
            Action::Persist => (10, 0, Some(0), 0),
            Action::Evict => (11, 0, Some(0), 0),
        };
        let out = &mut buffer[..COMMAND_LEN];
        out.fill(0);
        (out[0], out[1], out[2]) = (verb, kind, u8::from(key.is_some()));
        out[3] = self.persist.map_or(0, |persist| 2 | u8::from(persist));
        out[8..16].copy_from_slice(&key.unwrap_or(0).to_le_bytes());
        out[16..24].copy_from_slice(&other.to_le_bytes());
        out[24..40].copy_from_slice(&self.host.0);
    }

    /// The command at the front of `buffer`; `None` when there is none.
    pub fn decode(buffer: &[u8]) -> Option<Command> {
        let bytes: &[u8; COMMAND_LEN] = buffer.first_chunk()?;
        let number =
            |at: usize| bytes[at..at + 8].iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        let (key, other) = ((bytes[2] != 0).then(|| number(8)), number(16));
        let kind = Type::from_raw(bytes[1]);
        let action = match bytes[0] {
            1 => Action::Register { new: other },
            2 => Action::Unregister { key },
            3 => Action::Replace { key, new: other },
            4 => Action::Acquire { key: key?, kind: kind? },
            5 | 6 => {
                let abort = bytes[0] == 6;
                Action::Preempt { key: key?, kind: kind?, victim: other, abort }
            }
            7 => Action::Release { key: key?, kind: kind? },
            8 => Action::Clear { key: key? },
            9 => Action::Report,
            10 => Action::Persist,
            11 => Action::Evict,
            _ => return None,
        };
        let mut host = Host::default();
        host.0.copy_from_slice(&bytes[24..40]);
        let persist = (bytes[3] & 2 != 0).then_some(bytes[3] & 1 != 0);
        Some(Command { host, action, persist })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_round_trips() {
        let (key, kind) = (u64::MAX, Type::ExclusiveAccessAll);
        let actions = [
            Action::Register { new: 1 },
            Action::Unregister { key: None },
            Action::Unregister { key: Some(3) },
            Action::Replace { key: Some(0), new: key },
            Action::Replace { key: None, new: key },
            Action::Acquire { key, kind },
            Action::Preempt { key, kind, victim: 9, abort: false },
            Action::Preempt { key, kind, victim: 0, abort: true },
            Action::Release { key, kind },
            Action::Clear { key },
            Action::Report,
            Action::Persist,
            Action::Evict,
        ];
        for action in actions {
            for persist in [None, Some(false), Some(true)] {
                let host = Host([0x5a; 16]);
                let command = Command { host, action, persist };
                let mut bytes = [0xee; COMMAND_LEN + 1];
                command.encode(&mut bytes);
                assert_eq!(Command::decode(&bytes), Some(command));
            }
        }
        assert_eq!(Command::decode(&[1; COMMAND_LEN - 1]), None);
        assert_eq!(Command::decode(&[0; COMMAND_LEN]), None);
    }
}
