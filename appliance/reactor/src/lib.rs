//! Pins a core, calls `turn`, moves messages; idles politely. Knows nothing about storage.
//!
//! A [`Reactor`] is a thread of its own with one [`Machine`] on it. The machine is built *on* that
//! thread, because buffer pools and rings belong to the thread that made them, and it is dropped
//! there. The reactor hands it the time and calls it again and again:
//!
//! ```text
//!            +--------------------------- Worked --------------------------+
//!            v                                                             |
//!  start -> build -> turn(now) --- Idle ---> spin for a while --- Idle --> sleep until a
//!                      |                     (Idle::Spin: for ever)        descriptor, the
//!                      +- Done, stop -> drop -> join                       doorbell or a time-out
//! ```
//!
//! [`Doorbell`] and [`mailbox`] are how other threads reach a machine: a bounded ring of messages,
//! and an `eventfd` that is written only when the reactor sleeps. Sleeping costs a wake-up of
//! 5-50 us and saves a core; spinning costs the core. ADR 0041 has the numbers.
//!
//! **What it deliberately is not.** No executor, no task, no timer wheel: a machine keeps its own
//! time-outs and says when the next one is. No panic is caught: it ends the process, so that
//! another replica takes over.
//!
//! # Example
//!
//! ```
//! use bdev::Instant;
//! use reactor::{Doorbell, Machine, Progress, Reactor, ReactorConfig, mailbox};
//!
//! struct Adder {
//!     inbox: reactor::Receiver<u32>,
//!     outbox: reactor::Sender<u32>,
//!     sum: u32,
//! }
//!
//! impl Machine for Adder {
//!     fn turn(&mut self, _now: Instant) -> Progress {
//!         let Some(number) = self.inbox.take() else { return Progress::Idle };
//!         self.sum += number;
//!         self.outbox.send(self.sum).expect("the other side keeps up");
//!         Progress::Worked
//!     }
//! }
//!
//! let (doorbell, here) = (Doorbell::new().expect("eventfd"), Doorbell::new().expect("eventfd"));
//! let (mut to_adder, inbox) = mailbox(8, &doorbell);
//! let (outbox, mut answers) = mailbox(8, &here);
//! let config = ReactorConfig::new("adder");
//! let build = move || Ok::<_, std::convert::Infallible>(Adder { inbox, outbox, sum: 0 });
//! let reactor = Reactor::start(&config, &doorbell, build).expect("a thread");
//! to_adder.send(2).expect("room");
//! to_adder.send(3).expect("room");
//! let mut last = 0;
//! while last != 5 {
//!     here.wait(|| !answers.is_empty());
//!     last = answers.take().expect("waited for it");
//! }
//! reactor.stop();
//! reactor.join();
//! ```

mod clock;
mod cores;
mod doorbell;
mod limits;
mod machine;
mod mailbox;
mod runner;
mod stats;
mod system;

pub use clock::Clock;
pub use cores::{cores_allowed, pin_to_core};
pub use doorbell::Doorbell;
pub use limits::{MAILBOX_MAX, SLEEP_MAX, SPIN_DEFAULT};
pub use machine::{Machine, Progress};
pub use mailbox::{Receiver, Sender, mailbox};
pub use runner::{Idle, Reactor, ReactorConfig, StartError};
pub use stats::{ReactorStats, Snapshot};
