//! The commands of admin queues.

use nvme_spec::{NvmeStatus, Sqe, StatusCode, opcode};

use crate::command::{Plan, Segment, Transfer};
use crate::connection::{Connection, Cx};
use crate::controller::Kind;
use crate::identify::IDENTIFY_LEN;
use crate::limits::TRANSFER_MAX;
use crate::logs::LogRequest;
use crate::{commands, features, identify, logs};

/// What an admin command needs, or why it is refused.
pub(crate) fn plan(sqe: &Sqe) -> Result<Plan, NvmeStatus> {
    commands::check(commands::ADMIN, sqe.opcode)?;
    let transfer = match sqe.opcode {
        opcode::admin::IDENTIFY => Transfer::ToHost(IDENTIFY_LEN),
        opcode::admin::GET_LOG_PAGE => Transfer::ToHost(log_len(sqe)?),
        opcode::admin::GET_FEATURES => features::get_transfer(sqe),
        opcode::admin::SET_FEATURES => features::set_transfer(sqe),
        _ => Transfer::None,
    };
    Ok(Plan::admin(transfer))
}

/// Bytes that a Get Log Page asks for: NUMD, 0's based dwords in two halves.
//= NVMe-Base 2.1 §5.1.12
//# NUMDL in CDW10 bits 31:16, NUMDU in CDW11 bits 15:0
fn log_len(sqe: &Sqe) -> Result<u32, NvmeStatus> {
    let numd = (sqe.cdw11.get() & 0xffff) << 16 | sqe.cdw10.get() >> 16;
    let len = numd.checked_add(1).and_then(|dwords| dwords.checked_mul(4));
    len.filter(|&len| len <= TRANSFER_MAX).ok_or(NvmeStatus::never(StatusCode::INVALID_FIELD))
}

impl Connection {
    pub(crate) fn execute_admin(&mut self, cx: Cx<'_>, key: u32) {
        let sqe = self.commands.get(key).expect("ready commands exist").sqe;
        let controller = self.controller.as_ref().expect("an admin queue has its controller");
        //= NVMe-Base 2.1 §3.5.2
        //# until CSTS.RDY the admin queue takes Fabrics commands only
        if !controller.is_ready() {
            return self.answer(key, NvmeStatus::never(StatusCode::COMMAND_SEQUENCE_ERROR));
        }
        match sqe.opcode {
            opcode::admin::IDENTIFY => self.identify(key, &sqe),
            opcode::admin::GET_LOG_PAGE => self.get_log_page(cx, key, &sqe),
            opcode::admin::GET_FEATURES => self.get_features(cx, key, &sqe),
            opcode::admin::SET_FEATURES => self.set_features(cx, key, &sqe),
            opcode::admin::ASYNC_EVENT => self.async_event_request(key),
            opcode::admin::KEEP_ALIVE => self.answer(key, NvmeStatus::SUCCESS),
            opcode::admin::ABORT => self.abort(key, &sqe),
            opcode::admin::CROSS_CONTROLLER_RESET => self.cross_reset(key, &sqe),
            _ => unreachable!("the table has no other command"),
        }
    }

    fn identify(&mut self, key: u32, sqe: &Sqe) {
        let controller = self.controller.as_ref().expect("an admin queue has its controller");
        let queue = self.queue.as_ref().expect("an admin queue is connected");
        let subject = identify::Subject {
            cntlid: queue.hold.cntlid(),
            view: queue.subsystem.as_ref(),
            discovery_nqn: self.snapshot.discovery_nqn,
            events: controller.notices.offered(),
            instance: self.target.registry().instance(queue.hold),
        };
        let command = self.commands.get_mut(key).expect("ready commands exist");
        match identify::fill(&subject, sqe, page_of(&mut command.segment, IDENTIFY_LEN)) {
            Ok(()) => self.answer_filled(key),
            Err(status) => self.answer(key, status),
        }
    }

    fn get_log_page(&mut self, cx: Cx<'_>, key: u32, sqe: &Sqe) {
        let request = match LogRequest::of(sqe) {
            Ok(request) => request,
            Err(status) => return self.answer(key, status),
        };
        let command = self.commands.get_mut(key).expect("ready commands exist");
        let Transfer::ToHost(len) = command.plan.transfer else {
            unreachable!("a log page goes to the host")
        };
        let controller = self.controller.as_mut().expect("an admin queue has its controller");
        let queue = self.queue.as_ref().expect("an admin queue is connected");
        let source = logs::Source {
            registry: self.target.registry(),
            healths: self.target.healths(),
            hold: queue.hold,
            view: queue.subsystem.as_ref(),
            snapshot: &self.snapshot,
            identity: &controller.identity,
            local: self.addresses.local,
            resets: &controller.resets,
            now: cx.now,
        };
        let page = page_of(&mut command.segment, len);
        let filled = match controller.kind {
            Kind::Io => logs::fill_io(&source, &request, page),
            Kind::Discovery => logs::fill_discovery(&source, &request, page),
        };
        match filled {
            Ok(event) => {
                if request.removes_resets() {
                    controller.resets.remove_completed();
                }
                if !request.retain_event {
                    controller.notices.acknowledge(event);
                }
                self.answer_filled(key);
            }
            Err(status) => self.answer(key, status),
        }
    }
}

/// The first `len` bytes of a command's buffer, zeroed: the pool's segments hold old data.
pub(crate) fn page_of(segment: &mut Segment, len: u32) -> &mut [u8] {
    let Segment::Filling(buf) = segment else { unreachable!("the buffer was just taken") };
    let page = &mut buf.bytes_mut()[..len as usize];
    page.fill(0);
    page
}
