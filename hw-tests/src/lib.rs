//! Black-box tests: real initiators in virtual machines against the real daemon.
//!
//! A stock Debian kernel boots under QEMU (no KVM needed), sees the host's root read-only, and runs
//! shell scripts that use the host's own `nvme`, `fio` and `mkfs` against `holdfastd` on the host.
//! One boot serves all cases; between scripts the host kills the daemon, grows a volume or flips a
//! byte on the backing file.
//!
//! ```text
//!  host                                          guest (kernel 6.12)
//!  hw-lab --- orders, answers (virtio-serial) -- agent.sh -- cases/*.sh
//!    |                                              |
//!    +-- holdfastd <------ NVMe/TCP (slirp) --------+
//! ```
//!
//! It is not a library for others: the `hw-lab` program is its one user, and `make test` runs it
//! after the tests that need no virtual machine. It depends on no crate of the workspace, only on
//! the programs a user has. See `hw-tests/README.md` for how to run and extend it.
//!
//! ```
//! use hw_tests::Progress;
//! let fresh = Progress::load(std::path::Path::new("/nonexistent")).unwrap();
//! assert_eq!(fresh.durable, 0);
//! ```
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "a black-box harness has clocks, files, threads and processes of its own"
)]

mod case;
mod cases;
mod dmesg;
mod guest;
mod holdfast;
mod initramfs;
mod kernel;
mod lab;
mod ledger;
mod node;
mod power;
mod report;
mod runner;
mod tools;
mod vm;
mod wait;
mod workdir;

pub use ledger::{Ledger, Progress};
pub use runner::{Options, run};
