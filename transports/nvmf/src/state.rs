//! The states of a connection, and the only place where they change.
//!
//! ```text
//! Closed --accept--> AwaitIcReq --ICReq--> AwaitConnect --Connect--> Admin | Io
//!    ^                    |                     |                        |
//!    |                    `----- fault, timeout, disconnect, end --------'
//!    |                                          v
//!    `--drained-- Draining <--socket gone--  Closing
//! ```
//!
//! *Closing* says its last words (a response, a terminate request) and discards what it receives.
//! *Draining* has no socket any more; it waits for requests in flight.

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No TCP connection.
    Closed,
    /// Connected; the first PDU must be ICReq.
    AwaitIcReq,
    /// Initialized; the first command must be Connect.
    AwaitConnect,
    /// An admin queue.
    Admin,
    /// An I/O queue.
    Io,
    /// Saying the last words.
    Closing,
    /// The socket is gone; requests are in flight.
    Draining,
}

/// What moves a connection on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A TCP connection was accepted.
    Accept,
    /// A valid ICReq.
    IcReq,
    /// A valid Connect of an admin queue.
    ConnectAdmin,
    /// A valid Connect of an I/O queue.
    ConnectIo,
    /// Any reason to end it from this side, and the host's Disconnect.
    End,
    /// The socket is gone.
    SocketGone,
    /// Nothing is in flight any more.
    Drained,
}

impl State {
    /// The next state; `None` when this input cannot come in this state.
    pub(crate) fn on(self, input: Input) -> Option<State> {
        Some(match (self, input) {
            (State::Closed, Input::Accept) => State::AwaitIcReq,
            (State::Closed, _) | (_, Input::Accept) => return None,
            (State::Draining, Input::Drained) => State::Closed,
            (_, Input::Drained) => return None,
            (_, Input::SocketGone) => State::Draining,
            (State::Draining | State::Closing, Input::End) => self,
            (_, Input::End) => State::Closing,
            (State::AwaitIcReq, Input::IcReq) => State::AwaitConnect,
            (State::AwaitConnect, Input::ConnectAdmin) => State::Admin,
            (State::AwaitConnect, Input::ConnectIo) => State::Io,
            (_, Input::IcReq | Input::ConnectAdmin | Input::ConnectIo) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn every_state_and_input_matches_the_golden_table() {
        use Input as I;
        use State as S;
        let states =
            [S::Closed, S::AwaitIcReq, S::AwaitConnect, S::Admin, S::Io, S::Closing, S::Draining];
        let inputs =
            [I::Accept, I::IcReq, I::ConnectAdmin, I::ConnectIo, I::End, I::SocketGone, I::Drained];
        let mut table = String::new();
        for state in states {
            for input in inputs {
                let next = state.on(input).map_or("-".to_string(), |next| format!("{next:?}"));
                let (state, input) = (format!("{state:?}"), format!("{input:?}"));
                writeln!(table, "{state:<13} {input:<13} {next}").unwrap();
            }
        }
        assert_eq!(table, include_str!("../testdata/connection-states.golden"));
    }
}
