//! The servers of a node: gRPC on TCP and on a Unix socket, and HTTP for metrics and health.
//!
//! The crate translates; it decides nothing. Every call is parsed into an `api` type, handed to
//! the [`api::Node`] it was given, and the answer is translated back. What it adds is the same for
//! all calls: a request id (the client's, or a fresh one) that is in every log line of the call, in
//! its answer and in its error; one log line at the end; one count for `/metrics`. A mutation runs
//! to its end even when the client goes away.
//!
//! ```text
//!   TCP  ---+                    +--> api::Node (the daemon)
//!           +--> gRPC services --+
//!   Unix ---+                    |
//!   HTTP ------> /metrics -------+    /healthz  alive     /readyz  ready for hosts
//! ```
//!
//! There is no authentication in gRPC yet: the Unix socket is guarded by its file mode, and the
//! TCP listener is off unless it is configured.
//!
//! ```no_run
//! # async fn example(node: std::sync::Arc<dyn api::Node>) -> std::io::Result<()> {
//! let socket = server::SocketFile::bind("/run/holdfast/holdfastd.sock".as_ref(), 0o660)?;
//! let listeners = server::Listeners { socket: Some(socket), ..Default::default() };
//! server::serve(node, listeners, std::future::pending()).await
//! # }
//! ```
#![forbid(unsafe_code)]

mod call;
mod grpc;
mod http;
mod limits;
mod metrics;
mod serve;
mod socket;

pub use limits::{CONCURRENT_CALLS_MAX, DRAIN_SECONDS_MAX};
pub use metrics::METRICS_CONTENT_TYPE;
pub use serve::{Listeners, serve};
pub use socket::SocketFile;
