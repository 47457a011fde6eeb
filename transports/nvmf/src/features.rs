//! Get Features and Set Features.

use nvme_spec::feature::{self, select};
use nvme_spec::{NvmeStatus, Sqe, StatusCode};

use crate::admin::page_of;
use crate::command::Transfer;
use crate::connection::{Connection, Cx};
use crate::controller::Kind;
use crate::framer::narrow;
use crate::limits::{IO_QUEUES_MAX, NS_PER_MS};
use crate::{copy, keep_alive};

/// EXHID: the host wants its 16-byte identifier.
const EXTENDED_HOST_ID: u32 = 1;

/// Bytes of Host Behavior Support that mean something: up to CDFE.
pub(crate) const BEHAVIOR_LEN: usize = CDFE + 2;
const CDFE: usize = feature::HOST_BEHAVIOR_CDFE;

/// Timestamp origin: set by Set Features since the last reset.
const TIMESTAMP_SET: u8 = 1 << 1;

fn fid(sqe: &Sqe) -> u8 {
    sqe.cdw10.get().to_le_bytes()[0]
}

fn sel(sqe: &Sqe) -> u8 {
    sqe.cdw10.get().to_le_bytes()[1] & 0x07
}

/// What Get Features moves.
pub(crate) fn get_transfer(sqe: &Sqe) -> Transfer {
    let len = match (fid(sqe), sel(sqe)) {
        (_, select::CAPABILITIES) => 0,
        (feature::TIMESTAMP, _) => feature::TIMESTAMP_LEN,
        (feature::HOST_BEHAVIOR, _) => feature::HOST_BEHAVIOR_LEN,
        (feature::HOST_IDENTIFIER, _) if sqe.cdw11.get() & EXTENDED_HOST_ID != 0 => {
            feature::HOST_IDENTIFIER_LEN
        }
        _ => 0,
    };
    if len == 0 { Transfer::None } else { Transfer::ToHost(narrow(len)) }
}

/// What Set Features moves.
pub(crate) fn set_transfer(sqe: &Sqe) -> Transfer {
    match fid(sqe) {
        feature::TIMESTAMP => Transfer::FromHost(narrow(feature::TIMESTAMP_LEN)),
        feature::HOST_BEHAVIOR => Transfer::FromHost(narrow(feature::HOST_BEHAVIOR_LEN)),
        _ => Transfer::None,
    }
}

/// Features of an I/O controller that exist and never change, with their value.
fn constant(fid: u8) -> Option<u32> {
    match fid {
        // AB 111b: no limit on an arbitration burst.
        feature::ARBITRATION => Some(0x07),
        feature::POWER_MANAGEMENT | feature::ERROR_RECOVERY | feature::WRITE_ATOMICITY => Some(0),
        _ => None,
    }
}

/// Whether this kind of controller has the feature, and can change it.
pub(crate) fn support(kind: Kind, fid: u8) -> Option<bool> {
    match fid {
        feature::ASYNC_EVENT_CONFIG | feature::KEEP_ALIVE_TIMER => Some(true),
        _ if kind == Kind::Discovery => None,
        feature::NUMBER_OF_QUEUES | feature::TIMESTAMP | feature::HOST_BEHAVIOR => Some(true),
        feature::HOST_IDENTIFIER => Some(false),
        feature::RESERVATION_MASK | feature::RESERVATION_PERSISTENCE => Some(true),
        _ => constant(fid).map(|_| false),
    }
}

impl Connection {
    pub(crate) fn get_features(&mut self, cx: Cx<'_>, key: u32, sqe: &Sqe) {
        let controller = self.controller.as_ref().expect("an admin queue has its controller");
        let fid = fid(sqe);
        let Some(changeable) = support(controller.kind, fid) else {
            return self.answer(key, NvmeStatus::never(StatusCode::INVALID_FIELD));
        };
        let default = match sel(sqe) {
            select::CURRENT => false,
            //= NVMe-Base 2.1 §5.1.11
            //# nothing is saveable, so the saved value is the default
            select::DEFAULT | select::SAVED => true,
            select::CAPABILITIES => {
                let mut dw0 = if changeable { feature::CAPABILITY_CHANGEABLE } else { 0 };
                dw0 |= if is_reservation(fid) { feature::CAPABILITY_NAMESPACE } else { 0 };
                return self.answer_with(key, NvmeStatus::SUCCESS, dw0, 0);
            }
            _ => return self.answer(key, NvmeStatus::never(StatusCode::INVALID_FIELD)),
        };
        if fid == feature::HOST_IDENTIFIER && sqe.cdw11.get() & EXTENDED_HOST_ID == 0 {
            //= NVMe-Base 2.1 §5.1.25
            //# over Fabrics the host identifier has 128 bits
            return self.answer(key, NvmeStatus::never(StatusCode::INVALID_FIELD));
        }
        if is_reservation(fid) {
            return self.reservation_feature(cx, key, sqe, default);
        }
        if get_transfer(sqe) != Transfer::None {
            return self.get_feature_data(cx, key, sqe, default);
        }
        let queue = self.queue.as_ref().expect("an admin queue is connected");
        let registry = self.target.registry();
        let dw0 = match fid {
            feature::NUMBER_OF_QUEUES if default => both(IO_QUEUES_MAX),
            feature::NUMBER_OF_QUEUES => both(registry.queues_granted(queue.hold)),
            _ if default => constant(fid).unwrap_or(0),
            feature::ASYNC_EVENT_CONFIG => controller.notices.config,
            feature::KEEP_ALIVE_TIMER => registry.kato_ms(queue.hold),
            _ => constant(fid).unwrap_or(0),
        };
        self.answer_with(key, NvmeStatus::SUCCESS, dw0, 0);
    }

    fn get_feature_data(&mut self, cx: Cx<'_>, key: u32, sqe: &Sqe, default: bool) {
        let controller = self.controller.as_ref().expect("an admin queue has its controller");
        let command = self.commands.get_mut(key).expect("ready commands exist");
        let Transfer::ToHost(len) = command.plan.transfer else {
            unreachable!("the data of a feature goes to the host")
        };
        let page = page_of(&mut command.segment, len);
        match fid(sqe) {
            feature::TIMESTAMP => {
                let (set_ms, at) = controller.timestamp.unwrap_or((0, bdev::Instant::ZERO));
                let passed = cx.now.as_ns().saturating_sub(at.as_ns()) / NS_PER_MS;
                let ms = if default { 0 } else { set_ms.saturating_add(passed) };
                page[..6].copy_from_slice(&ms.to_le_bytes()[..6]);
                page[6] = if controller.timestamp.is_some() { TIMESTAMP_SET } else { 0 };
            }
            feature::HOST_BEHAVIOR if default => (),
            feature::HOST_BEHAVIOR => page[..BEHAVIOR_LEN].copy_from_slice(&controller.behavior),
            _ => page.copy_from_slice(&controller.identity.hostid.0),
        }
        self.answer_filled(key);
    }

    pub(crate) fn set_features(&mut self, cx: Cx<'_>, key: u32, sqe: &Sqe) {
        let controller = self.controller.as_mut().expect("an admin queue has its controller");
        let refuse = |code| NvmeStatus::never(code);
        let fid = fid(sqe);
        let status = match support(controller.kind, fid) {
            None => refuse(StatusCode::INVALID_FIELD),
            Some(_) if sqe.cdw10.get() & feature::SAVE != 0 => {
                refuse(StatusCode::FEATURE_NOT_SAVEABLE)
            }
            //= NVMe-Base 2.1 §5.1.25
            //# over Fabrics the host identifier comes with Connect and cannot be set
            Some(false) if fid == feature::HOST_IDENTIFIER => {
                refuse(StatusCode::COMMAND_SEQUENCE_ERROR)
            }
            Some(false) => refuse(StatusCode::FEATURE_NOT_CHANGEABLE),
            Some(true) if is_reservation(fid) => {
                return self.reservation_feature(cx, key, sqe, false);
            }
            Some(true) => return self.set_feature(cx, key, sqe),
        };
        self.answer(key, status);
    }

    fn set_feature(&mut self, cx: Cx<'_>, key: u32, sqe: &Sqe) {
        let controller = self.controller.as_mut().expect("an admin queue has its controller");
        let queue = self.queue.as_ref().expect("an admin queue is connected");
        let command = self.commands.get(key).expect("ready commands exist");
        let (value, data) = (sqe.cdw11.get(), command.bytes());
        let mut dw0 = 0;
        match fid(sqe) {
            feature::NUMBER_OF_QUEUES => {
                let granted = queues_asked(value)
                    .map(|count| self.target.registry().grant_queues(queue.hold, count));
                match granted {
                    Some(Some(count)) => dw0 = both(count),
                    //= NVMe-Base 2.1 §5.1.25
                    //# the number of queues is set before I/O queues exist
                    Some(None) => {
                        let code = StatusCode::COMMAND_SEQUENCE_ERROR;
                        return self.answer(key, NvmeStatus::never(code));
                    }
                    None => {
                        return self.answer(key, NvmeStatus::never(StatusCode::INVALID_FIELD));
                    }
                }
            }
            feature::ASYNC_EVENT_CONFIG => controller.notices.config = value,
            feature::KEEP_ALIVE_TIMER => match keep_alive::granted(value) {
                Ok(kato_ms) => {
                    self.target.registry().set_kato_ms(queue.hold, kato_ms);
                    controller.interval = cx.now;
                }
                Err(status) => return self.answer(key, status),
            },
            feature::TIMESTAMP => {
                let mut ms = [0; 8];
                ms[..6].copy_from_slice(&data[..6]);
                controller.timestamp = Some((u64::from_le_bytes(ms), cx.now));
            }
            feature::HOST_BEHAVIOR => {
                let formats = u16::from_le_bytes([data[CDFE], data[CDFE + 1]]);
                //= NVMe-Base 2.1 §5.1.25
                //# CDFE enables only formats that are supported
                if u32::from(formats) & !copy::FORMATS_TO_ENABLE != 0 {
                    return self.answer(key, NvmeStatus::never(StatusCode::INVALID_FIELD));
                }
                controller.behavior.copy_from_slice(&data[..BEHAVIOR_LEN]);
                let registry = self.target.registry();
                registry.set_copy_formats(queue.hold, u32::from(formats));
            }
            _ => unreachable!("support lists what can be changed"),
        }
        self.answer_with(key, NvmeStatus::SUCCESS, dw0, 0);
    }
}

/// The features of namespaces, which live elsewhere.
fn is_reservation(fid: u8) -> bool {
    matches!(fid, feature::RESERVATION_MASK | feature::RESERVATION_PERSISTENCE)
}

/// NSQA and NCQA: 0's based, the same for both.
fn both(count: u16) -> u32 {
    let count = u32::from(count - 1);
    count << 16 | count
}

/// How many queue pairs NSQR and NCQR ask for; `None` for the forbidden value.
fn queues_asked(value: u32) -> Option<u16> {
    let [a, b, c, d] = value.to_le_bytes();
    let (submission, completion) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    //= NVMe-Base 2.1 §5.1.25
    //# FFFFh is an invalid number of queues
    submission.min(completion).checked_add(1).filter(|_| submission.max(completion) < 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_numbers_are_zero_based_and_bounded() {
        assert_eq!(queues_asked(0x0003_0003), Some(4));
        assert_eq!(queues_asked(0x0007_0003), Some(4));
        assert_eq!(queues_asked(0xffff_0003), None);
        assert_eq!(both(64), 0x003f_003f);
    }
}
