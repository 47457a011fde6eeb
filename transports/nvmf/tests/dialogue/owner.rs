//! The owner of a volume in a dialogue: it runs reservation commands, and tells hosts.

use std::collections::BTreeMap;

use bdev::{Completion, Data, Request, Status};
use nvmf::{HostId, Target};
use reservation::{Action, Command, Host, Notices, Refusal, Table};

/// The reservation tables by namespace handle.
pub(super) type Tables = BTreeMap<u32, Table>;

/// Runs the command in the buffer of a request, and answers in it.
pub(super) fn reserve(
    tables: &mut Tables,
    target: &Target,
    handle: u32,
    request: Request,
) -> Completion {
    let Request { tag, mut data, .. } = request;
    let Data::Into(buf) = &mut data else { panic!("a reservation command has a buffer") };
    let command = Command::decode(buf.bytes()).expect("connections make commands");
    let mut uuid = [0x5a; 16];
    uuid[15] = u8::try_from(handle % 256).unwrap();
    let (table, mut notices) = (tables.entry(handle).or_default(), Notices::new());
    let done = table.apply(&command, &mut notices);
    for (Host(host), notice) in notices.iter() {
        target.notify_reservation(uuid, HostId(host), notice);
    }
    if command.action == Action::Report {
        table.encode(uuid, buf.bytes_mut());
    }
    let status = match done {
        Ok(()) => Status::Ok,
        Err(Refusal::Conflict) => Status::ReservationConflict,
        Err(Refusal::Invalid) => Status::Invalid,
        Err(Refusal::Full) => Status::NoSpace,
    };
    Completion { tag, data, status }
}
