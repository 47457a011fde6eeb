//! How good a path a node is to a volume: asymmetric namespace access.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::{ApiError, VolumeName};

/// The state that hosts are told of a path to a volume. The later, the worse.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum AnaState {
    /// Use it.
    #[default]
    Optimized,
    /// Use it when there is no better one.
    NonOptimized,
    /// Between two states: wait, some seconds.
    Change,
    /// Do not use it now.
    Inaccessible,
    /// Never use it again.
    PersistentLoss,
}

impl AnaState {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Optimized,
        Self::NonOptimized,
        Self::Change,
        Self::Inaccessible,
        Self::PersistentLoss,
    ];

    /// The stable spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Optimized => "optimized",
            Self::NonOptimized => "non-optimized",
            Self::Change => "change",
            Self::Inaccessible => "inaccessible",
            Self::PersistentLoss => "persistent-loss",
        }
    }
}

impl fmt::Display for AnaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for AnaState {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            let reason = format!("{text:?} is not the state of a path");
            ApiError::invalid("state", reason, format!("use one of {names}"))
        })
    }
}

/// The state of the paths to an export: of all, and of those through single listeners where they
/// are worse.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Access {
    /// What holds for the whole node.
    pub state: AnaState,
    /// What holds at single listeners, by address. An optimized one is not listed.
    pub listeners: Vec<(SocketAddr, AnaState)>,
}

impl Access {
    /// Sets the state of the node, or that of one listener.
    pub fn set(&mut self, listener: Option<SocketAddr>, state: AnaState) {
        let Some(address) = listener else {
            self.state = state;
            return;
        };
        self.listeners.retain(|(known, _)| *known != address);
        if state != AnaState::Optimized {
            self.listeners.push((address, state));
            self.listeners.sort();
        }
    }
}

/// Sets the state of the paths to an export.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SetAnaState {
    /// The exported volume.
    pub volume: VolumeName,
    /// The new state.
    pub state: AnaState,
    /// Only of the paths through this listener.
    pub listener: Option<SocketAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_read_back() {
        for state in AnaState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("standby".parse::<AnaState>().is_err());
    }

    #[test]
    fn a_listener_is_listed_while_it_is_worse_than_optimized() {
        let mut access = Access::default();
        let listener = "192.0.2.1:4420".parse().unwrap();
        access.set(Some(listener), AnaState::Inaccessible);
        access.set(Some(listener), AnaState::NonOptimized);
        assert_eq!(access.listeners, [(listener, AnaState::NonOptimized)]);
        assert_eq!(access.state, AnaState::Optimized);
        access.set(Some(listener), AnaState::Optimized);
        assert_eq!(access, Access::default());
    }
}
