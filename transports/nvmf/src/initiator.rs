//! The host's side: the same codec, driven the other way round. For the simulator, the polled
//! benchmark client and the tests; sans-IO like the target.
//!
//! An [`Initiator`] is one queue on one TCP connection. It sends ICReq and Connect by itself when
//! it is opened; then it takes block requests ([`Initiator::submit`]) or raw commands
//! ([`Initiator::submit_command`]). [`Admin`] drives an admin queue through the steps that a host
//! takes before its first I/O.
//!
//! ```text
//! Closed --open--> AwaitIcResp --ICResp--> AwaitConnect --CQE--> Ready --fault, end--> Failed
//!                                                `--ATR--> Authenticating --^
//! ```

mod admin;
mod auth;
mod incoming;
mod mapping;
mod outgoing;
mod queue;

pub use admin::{Admin, AdminInfo, NamespaceInfo};
pub use auth::{HostAuthentication, Random};
pub use queue::{Failure, HostCommand, HostIdentity, HostResponse, Initiator, QueueOptions};
