//! Asking a discovery service what this host may connect to.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use bdev::{BufMut, Data, Instant, Pool, Tag};
use net::Net;
use nvme_spec::property::{self, cc, csts};
use nvme_spec::{
    DISCOVERY_NQN, DiscoveryHeader, DiscoveryRecord, PropertyGetSqe, PropertySetSqe, Sqe, U32, U64,
    discovery_subtype, lid, opcode, trtype,
};
use nvmf::Nqn;
use nvmf::initiator::{Failure, HostCommand, HostResponse, Initiator, QueueOptions};
use zerocopy::{FromBytes, FromZeros};

use crate::client::{ConnectError, Host};
use crate::hub::{Hub, Machine};
use crate::limits::{
    CONNECT_TIMEOUT, DISCOVERY_RECORDS_MAX, DISCOVERY_RECORDS_PER_READ, DISCOVERY_TRIES,
};

const RECORD_LEN: u64 = size_of::<DiscoveryRecord>() as u64;
const HEADER_LEN: u64 = size_of::<DiscoveryHeader>() as u64;

/// A subsystem at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub subsystem: Nqn,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What the discovery service at `address` shows to `host`: subsystems on NVMe/TCP, in the order of
/// its log. `idle` is called while there is nothing to do but wait, and returns the time.
///
/// # Errors
/// See [`ConnectError`].
pub fn discover(
    net: Box<dyn Net>,
    pool: &Rc<Pool>,
    address: SocketAddr,
    host: Host,
    idle: &mut dyn FnMut() -> Instant,
) -> Result<Vec<Found>, ConnectError> {
    let service = Nqn::new(DISCOVERY_NQN).expect("the well-known name");
    let options = QueueOptions::admin(host.identity(service));
    let mut hub = Hub::new(net, Rc::clone(pool), 1);
    hub.add(address, Machine::Io(Box::new(Initiator::new(options))))?;
    hub.bring_up(idle, |hub| hub.all_ready().then_some(()))?;
    let mut service = Service { hub, pool, idle };
    service.enable()?;
    service.read()
}

/// A connected discovery controller.
struct Service<'a> {
    hub: Hub,
    pool: &'a Pool,
    idle: &'a mut dyn FnMut() -> Instant,
}

impl Service<'_> {
    fn enable(&mut self) -> Result<(), ConnectError> {
        const WHAT: &str = "enabling the discovery controller";
        self.execute(WHAT, enable_sqe(), 0)?;
        let deadline = (self.idle)().saturating_add(CONNECT_TIMEOUT);
        loop {
            let ready = self.execute(WHAT, status_sqe(), 0)?;
            if ready.cqe.dw0.get() & csts::RDY != 0 {
                return Ok(());
            }
            if (self.idle)() > deadline {
                return Err(ConnectError::TimedOut);
            }
        }
    }

    /// Reads the log until it did not change meanwhile.
    fn read(&mut self) -> Result<Vec<Found>, ConnectError> {
        let mut found = Vec::new();
        for _ in 0..DISCOVERY_TRIES {
            let (generation, count) = self.header()?;
            found.clear();
            let mut at = 0;
            while at < count {
                let records = (count - at).min(DISCOVERY_RECORDS_PER_READ);
                let len = records * RECORD_LEN;
                let page = self.log(HEADER_LEN + at * RECORD_LEN, len)?;
                let len = usize::try_from(len).expect("a few records");
                let records_read = page.bytes()[..len].chunks_exact(size_of::<DiscoveryRecord>());
                found.extend(records_read.filter_map(subsystem_in));
                at += records;
            }
            if self.header()?.0 == generation {
                break;
            }
        }
        Ok(found)
    }

    /// GENCTR, and the number of records.
    fn header(&mut self) -> Result<(u64, u64), ConnectError> {
        let page = self.log(0, HEADER_LEN)?;
        let header = DiscoveryHeader::ref_from_prefix(page.bytes()).expect("a whole header").0;
        Ok((header.genctr.get(), header.numrec.get().min(DISCOVERY_RECORDS_MAX)))
    }

    fn log(&mut self, offset: u64, len: u64) -> Result<BufMut, ConnectError> {
        let len = u32::try_from(len).expect("a few records");
        let response = self.execute("reading the discovery log", log_sqe(offset, len), len)?;
        match response.data {
            Data::Into(page) if response.received == len => Ok(page),
            _ => {
                let failure = Failure::Protocol("a discovery log that is too short");
                Err(ConnectError::Failed { qid: 0, failure })
            }
        }
    }

    fn execute(
        &mut self,
        what: &'static str,
        sqe: Sqe,
        len: u32,
    ) -> Result<HostResponse, ConnectError> {
        let data = match len {
            0 => Data::None,
            len => Data::Into(self.pool.take(len as usize).ok_or(ConnectError::Buffers)?),
        };
        let command = HostCommand { tag: Tag(0), sqe, data, len };
        let queue = self.hub.lanes[0].machine.initiator();
        // A connection that has just ended is reported by the wait below.
        let _ = queue.submit_command(command);
        self.hub.flush(0);
        let response = self
            .hub
            .bring_up(&mut *self.idle, |hub| hub.lanes[0].machine.initiator().poll_response())?;
        match response.cqe.nvme_status() {
            status if status.is_success() => Ok(response),
            answer => Err(ConnectError::Command { what, answer }),
        }
    }
}

/// The subsystem that a record names, if it is one on NVMe/TCP with an address.
fn subsystem_in(record: &[u8]) -> Option<Found> {
    let record = DiscoveryRecord::ref_from_bytes(record).ok()?;
    if record.trtype != trtype::TCP || record.subtype != discovery_subtype::NVM {
        return None;
    }
    let ip: IpAddr = text_in(&record.traddr)?.parse().ok()?;
    let port: u16 = text_in(&record.trsvcid)?.parse().ok()?;
    let subsystem = Nqn::new(text_in(&record.subnqn)?).ok()?;
    Some(Found { subsystem, address: SocketAddr::new(ip, port) })
}

/// The text of a field that spaces or zeroes pad.
fn text_in(field: &[u8]) -> Option<&str> {
    let len = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    std::str::from_utf8(&field[..len]).ok().map(|text| text.trim_end_matches(' '))
}

fn enable_sqe() -> Sqe {
    let mut sqe = PropertySetSqe::new_zeroed();
    sqe.opcode = opcode::FABRICS;
    sqe.fctype = opcode::fctype::PROPERTY_SET;
    sqe.offset = U32::new(property::CC);
    let entries = 6 << cc::IOSQES_SHIFT | 4 << cc::IOCQES_SHIFT;
    sqe.value = U64::new(u64::from(cc::EN | entries));
    zerocopy::transmute!(sqe)
}

fn status_sqe() -> Sqe {
    let mut sqe = PropertyGetSqe::new_zeroed();
    sqe.opcode = opcode::FABRICS;
    sqe.fctype = opcode::fctype::PROPERTY_GET;
    sqe.offset = U32::new(property::CSTS);
    zerocopy::transmute!(sqe)
}

fn log_sqe(offset: u64, len: u32) -> Sqe {
    let mut sqe = Sqe::new_zeroed();
    sqe.opcode = opcode::admin::GET_LOG_PAGE;
    let dwords = len / 4 - 1;
    sqe.cdw10 = U32::new(u32::from(lid::DISCOVERY) | (dwords & 0xffff) << 16);
    sqe.cdw11 = U32::new(dwords >> 16);
    let [low, high] = [offset & u64::from(u32::MAX), offset >> 32];
    let half = |value: u64| U32::new(u32::try_from(value).expect("half of an offset"));
    (sqe.cdw12, sqe.cdw13) = (half(low), half(high));
    sqe
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn record(traddr: &[u8], trsvcid: &[u8], subnqn: &[u8]) -> DiscoveryRecord {
        let mut record = DiscoveryRecord::new_zeroed();
        (record.trtype, record.subtype) = (trtype::TCP, discovery_subtype::NVM);
        record.traddr[..traddr.len()].copy_from_slice(traddr);
        record.trsvcid[..trsvcid.len()].copy_from_slice(trsvcid);
        record.subnqn[..subnqn.len()].copy_from_slice(subnqn);
        record
    }

    #[test]
    fn subsystems_on_tcp_are_found_however_their_fields_are_padded() {
        for (traddr, trsvcid) in [(&b"192.0.2.1"[..], &b"4420"[..]), (b"fd00::1   ", b"4420 ")] {
            let found = subsystem_in(record(traddr, trsvcid, b"nqn.x:a").as_bytes()).unwrap();
            assert_eq!((found.subsystem.as_str(), found.address.port()), ("nqn.x:a", 4420));
        }
    }

    #[test]
    fn records_of_something_else_and_nonsense_are_passed_over() {
        let good = record(b"192.0.2.1", b"4420", b"nqn.x:a");
        let mut rdma = good;
        rdma.trtype = 1;
        let mut referral = good;
        referral.subtype = discovery_subtype::REFERRAL;
        let nonsense = [
            rdma,
            referral,
            record(b"storage.example", b"4420", b"nqn.x:a"),
            record(b"192.0.2.1", b"70000", b"nqn.x:a"),
            record(b"192.0.2.1", b"4420", b"\xff\xff"),
            record(b"", b"", b""),
        ];
        for record in nonsense {
            assert_eq!(subsystem_in(record.as_bytes()), None);
        }
    }
}
