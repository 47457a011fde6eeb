//! The operator's command line: `holdfast`.
//!
//! [`run`] is the whole program with its surroundings as arguments, so that tests run it as an
//! operator does. Tables are for people, `-o json` is for scripts; both come from the same `api`
//! values. An error says what was wrong, what to do, and under which request id the node logged
//! it. [`EXIT_CODES`] lists the exit codes; they are the same for text and JSON.
//!
//! The crate knows the wire only through `proto`, and decides nothing: the node does.
//!
//! ```
//! let mut out = Vec::new();
//! let mut err = Vec::new();
//! let mut terminal =
//!     cli::Terminal { out: &mut out, err: &mut err, input: &mut &b""[..], interactive: false };
//! let code = cli::run(["holdfast", "volume", "create", "a_b", "--size", "1GiB"], &mut terminal);
//! assert_eq!(code, 2);
//! assert!(String::from_utf8(err).expect("ASCII").contains("'_' at position 2"));
//! ```
#![forbid(unsafe_code)]

mod args;
mod client;
mod command;
mod confirm;
mod exit;
mod json;
mod progress;
mod run;
mod table;
mod time;

pub use exit::{EXIT_CODES, exit_code};
pub use run::{Terminal, run};
