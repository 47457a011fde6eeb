//! The discovery log: what a host may connect to, and where.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use nvme_spec::{
    CNTLID_DYNAMIC, DISCOVERY_NQN, DiscoveryHeader, DiscoveryRecord, U16, U64, adrfam,
    discovery_eflags, discovery_subtype, discovery_treq, trtype,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::Nqn;
use crate::config::Referral;
use crate::limits::QUEUE_ENTRIES_MAX;
use crate::logs::Window;
use crate::target::{Snapshot, SubsystemView};

const RECORD_LEN: usize = size_of::<DiscoveryRecord>();
const HEADER_LEN: usize = size_of::<DiscoveryHeader>();

/// The subsystems that `host` may connect to: nobody learns of others.
fn visible<'a>(
    snapshot: &'a Snapshot,
    host: &'a Nqn,
) -> impl Iterator<Item = &'a SubsystemView> + 'a {
    snapshot.subsystems.iter().map(AsRef::as_ref).filter(|view| view.hosts.allows(host))
}

/// The ports that a host which came through `local` can reach, with their addresses.
fn reachable(snapshot: &Snapshot, local: SocketAddr) -> impl Iterator<Item = (u16, SocketAddr)> {
    snapshot.ports.iter().filter_map(move |port| Some((port.id, reported(port.address, local)?)))
}

/// Records for `host`: this discovery service, each visible subsystem on each port, referrals.
fn records_len(snapshot: &Snapshot, host: &Nqn, local: SocketAddr) -> usize {
    let ports = reachable(snapshot, local).count();
    1 + visible(snapshot, host).count() * ports + snapshot.referrals.len()
}

/// Bytes of the log for `host`.
pub(crate) fn log_len(snapshot: &Snapshot, host: &Nqn, local: SocketAddr) -> usize {
    HEADER_LEN + records_len(snapshot, host, local) * RECORD_LEN
}

/// Fills the part of the log for `host` that `window` shows.
//= NVMe-Base 2.1 §5.1.12.3.1
//# GENCTR changes with the log, NUMREC counts the records, RECFMT is 0
pub(crate) fn fill(snapshot: &Snapshot, host: &Nqn, local: SocketAddr, window: &mut Window<'_>) {
    let mut header = DiscoveryHeader::new_zeroed();
    header.genctr = U64::new(snapshot.generations.of(host));
    header.numrec = U64::new(records_len(snapshot, host, local) as u64);
    window.put(0, header.as_bytes());

    let mut at = HEADER_LEN as u64;
    let mut put = |record: &dyn Fn() -> DiscoveryRecord| {
        if window.wants(at, RECORD_LEN as u64) {
            window.put(at, record().as_bytes());
        }
        at += RECORD_LEN as u64;
    };
    put(&|| this_service(snapshot, local));
    for view in visible(snapshot, host) {
        for (portid, address) in reachable(snapshot, local) {
            put(&|| {
                let mut record = at_address(address, portid);
                record.subtype = discovery_subtype::NVM;
                record.subnqn = view.nqn.to_field();
                record
            });
        }
    }
    for referral in &snapshot.referrals {
        put(&|| referred(referral));
    }
}

/// The record of another discovery service. What it knows, and whether a host may keep a
/// connection to it, is for it to say.
//= NVMe-Base 2.1 §3.1.3.3
//# a referral names another discovery service by its address, with the well-known name or its own
fn referred(referral: &Referral) -> DiscoveryRecord {
    let mut record = at_address(referral.address, 0);
    record.subtype = discovery_subtype::REFERRAL;
    record.treq = discovery_treq::SECURE_CHANNEL_NOT_SPECIFIED;
    let well_known = || Nqn::new(DISCOVERY_NQN).expect("the specification's own name");
    record.subnqn = referral.nqn.unwrap_or_else(well_known).to_field();
    record
}

/// The record of this discovery service, as the host reached it.
fn this_service(snapshot: &Snapshot, local: SocketAddr) -> DiscoveryRecord {
    let mut record = at_address(local, snapshot.port_at(local).unwrap_or(0));
    record.subtype = discovery_subtype::CURRENT_DISCOVERY;
    record.eflags =
        U16::new(discovery_eflags::PERSISTENT_CONNECTION | discovery_eflags::DUPLICATE_INFORMATION);
    record.subnqn = snapshot.discovery_nqn.to_field();
    record
}

fn at_address(address: SocketAddr, portid: u16) -> DiscoveryRecord {
    let mut record = DiscoveryRecord::new_zeroed();
    let ip = address.ip().to_canonical();
    record.trtype = trtype::TCP;
    record.adrfam = if ip.is_ipv4() { adrfam::IPV4 } else { adrfam::IPV6 };
    record.treq =
        discovery_treq::SECURE_CHANNEL_NOT_SPECIFIED | discovery_treq::DISABLE_SQ_FLOW_CONTROL;
    record.portid = U16::new(portid);
    record.cntlid = U16::new(CNTLID_DYNAMIC);
    record.asqsz = U16::new(QUEUE_ENTRIES_MAX);
    record.trsvcid.fill(b' ');
    record.traddr.fill(b' ');
    // Written without allocation; both fields are much larger than what goes in.
    let _ = write!(&mut record.trsvcid[..], "{}", address.port());
    let _ = write!(&mut record.traddr[..], "{ip}");
    record
}

/// The address to report for a port: an unspecified one becomes the one the host came through.
/// `None` for a host that came by a protocol on which the port does not listen.
fn reported(address: SocketAddr, local: SocketAddr) -> Option<SocketAddr> {
    let ip = match (address.ip(), local.ip().to_canonical()) {
        (ip, _) if !ip.is_unspecified() => ip,
        (IpAddr::V4(_), IpAddr::V6(_)) => return None,
        // A socket on `::` takes IPv4 as well.
        (_, ip) => ip,
    };
    Some(SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_ports_are_reported_as_the_address_the_host_used() {
        let at = |address: &str, local: &str| {
            let found = reported(address.parse().unwrap(), local.parse().unwrap());
            found.map_or(String::new(), |address| address.to_string())
        };
        assert_eq!(at("0.0.0.0:4420", "10.0.2.2:8009"), "10.0.2.2:4420");
        assert_eq!(at("[::]:4420", "[fd00::1]:8009"), "[fd00::1]:4420");
        assert_eq!(at("[::]:4420", "[::ffff:10.0.2.2]:8009"), "10.0.2.2:4420");
        assert_eq!(at("192.0.2.1:4420", "10.0.2.2:8009"), "192.0.2.1:4420");
        assert_eq!(at("0.0.0.0:4420", "[fd00::1]:8009"), "", "nothing listens there");
    }

    #[test]
    fn addresses_are_ascii_padded_with_spaces() {
        let record = at_address("10.0.2.2:4420".parse().unwrap(), 3);
        assert_eq!(&record.traddr[..9], b"10.0.2.2 ");
        assert_eq!(&record.trsvcid[..5], b"4420 ");
        assert_eq!((record.adrfam, record.portid.get()), (1, 3));
    }
}
