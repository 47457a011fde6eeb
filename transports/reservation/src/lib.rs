//! Who may use a volume that several hosts share: the rules of reservations. Sans-IO.
//!
//! A host *registers* with a key; a registrant *acquires* the reservation of the volume, which is
//! of one of six types; from then on others may not write, or neither read nor write. Another
//! registrant
//! who knows a key *preempts* who has it: that is how a cluster fences a member it has lost.
//!
//! ```text
//!   not registered --Register--> registrant --Acquire--> holder
//!         ^                          |  ^                  |
//!         |---Unregister, Clear------'  `----Release-------|
//!         `---Preempt, by another registrant---------------'
//! ```
//!
//! A [`Table`] is all that there is to know of one volume. Whoever owns the volume owns its table,
//! asks it for each read and write as soon as somebody holds a reservation ([`Table::allows`]), and
//! runs one [`Command`] after the other ([`Table::apply`]). Commands and tables travel as bytes in
//! the buffers of requests, and a table that is to outlive a restart is written as the same
//! bytes (`docs/formats/reservations.md`).
//!
//! **What it deliberately is not.** It knows no transport: NVMe's commands and SCSI's persistent
//! reservations, whose types are the same six, are both translated to it. It writes nothing
//! and waits for nothing: that what is acknowledged is durable is up to its owner.
//!
//! # Example
//!
//! ```
//! use reservation::{Access, Action, Command, Host, Notices, Refusal, Table, Type};
//!
//! let (a, b) = (Host([1; 16]), Host([2; 16]));
//! let mut table = Table::new();
//! let mut run = |host, action| {
//!     let command = Command { host, action, persist: None };
//!     let done = table.apply(&command, &mut Notices::new());
//!     (done, table.allows(b, Access::Read), table.allows(b, Access::Write))
//! };
//! run(a, Action::Register { new: 7 });
//! let acquire = Action::Acquire { key: 7, kind: Type::WriteExclusive };
//! assert_eq!(run(a, acquire), (Ok(()), true, false));
//! assert_eq!(run(b, acquire).0, Err(Refusal::Conflict));
//! ```

#![forbid(unsafe_code)]

mod command;
mod image;
mod notice;
mod table;

pub use command::{Action, COMMAND_LEN, Command};
pub use image::IMAGE_LEN;
pub use notice::{Notice, Notices};
pub use table::{Access, Host, REGISTRANTS_MAX, Refusal, Registrant, Table, Type};
