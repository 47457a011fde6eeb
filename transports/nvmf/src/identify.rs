//! Identify: what a controller and its namespaces are.

use nvme_spec::property::VERSION_2_1;
use nvme_spec::{
    ControllerType, IdentifyController, IdentifyControllerNvm, IdentifyNamespace,
    IdentifyNamespaceIndependent, IdentifyNamespaceNvm, LbaFormat, NamespaceDescriptorHeader,
    NamespaceList, NvmeStatus, Sqe, StatusCode, U16, U32, U64, cns, csi, ctratt,
    discovery_controller_type, dlfeat, fuses, lpa, nidt, nsfeat, oncs, sgls,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::config::Namespace;
use crate::cross_reset::Instance;
use crate::limits::{
    ABORTS_MAX, ASYNC_EVENTS_MAX, COPY_BLOCKS_MAX, COPY_RANGE_BLOCKS_MAX, COPY_RANGES_MAX,
    CROSS_RESETS_MAX, ERRORS_KEPT, IN_CAPSULE_MAX, KAS, MDTS, NAMESPACES_MAX, QUEUE_ENTRIES_MAX,
    QUIESCE_MS, VSL,
};
use crate::view::HostView;
use crate::{Nqn, ana, copy, fused, reservation};

/// Bytes of every Identify data structure.
pub(crate) const IDENTIFY_LEN: u32 = 4096;

const MODEL: &str = "Holdfast";
const FIRMWARE: &str = env!("CARGO_PKG_VERSION");

/// Bytes in which the store writes and sums: smaller writes read what is around them first.
const PREFERRED_BYTES: u32 = 4096;
/// Bytes in which the store takes and gives back space: a write of a whole one goes straight to its
/// place, and blocks that are deallocated free nothing before all of theirs are.
const EXTENT_BYTES: u32 = 64 << 10;

/// Bytes in a block of the formats there are, the largest last.
const FORMATS: [u32; 2] = [512, 4096];

/// Bytes of a command capsule's entry.
const SQE_LEN: u32 = 64;
/// Bytes of a response capsule.
const CQE_LEN: u32 = 16;

/// What is identified.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) cntlid: u16,
    pub(crate) view: Option<&'a HostView>,
    pub(crate) discovery_nqn: Nqn,
    /// OAES.
    pub(crate) events: u32,
    pub(crate) instance: Instance,
}

/// Fills `page`, which is zeroed, with what CNS asks for.
//= NVMe-Base 2.1 §5.1.13
//# an unsupported CNS, or one that this controller type does not have, is an invalid field
pub(crate) fn fill(subject: &Subject<'_>, sqe: &Sqe, page: &mut [u8]) -> Result<(), NvmeStatus> {
    let [cns, ..] = sqe.cdw10.get().to_le_bytes();
    let [.., csi] = sqe.cdw11.get().to_le_bytes();
    let nsid = sqe.nsid.get();
    let Some(view) = subject.view else {
        return match cns {
            cns::CONTROLLER => {
                fill_controller(subject, view_of(page));
                Ok(())
            }
            _ => Err(NvmeStatus::never(StatusCode::INVALID_FIELD)),
        };
    };
    let with_csi =
        matches!(cns, cns::NAMESPACE_CSI | cns::CONTROLLER_CSI | cns::ACTIVE_NAMESPACES_CSI);
    if with_csi && csi != csi::NVM {
        return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
    }
    match cns {
        cns::CONTROLLER => fill_controller(subject, view_of(page)),
        cns::NAMESPACE if nsid == u32::MAX => fill_common(view_of(page)),
        cns::NAMESPACE | cns::NAMESPACE_CSI | cns::NAMESPACE_INDEPENDENT => {
            //= NVMe-Base 2.1 §5.1.13
            //# a valid NSID that is not active reads as zeroes
            match active(view, nsid) {
                Ok(namespace) if cns == cns::NAMESPACE => {
                    fill_namespace(view, namespace, view_of(page));
                }
                Ok(_) if cns == cns::NAMESPACE_CSI => fill_namespace_nvm(view_of(page)),
                Ok(namespace) => fill_independent(namespace, view_of(page)),
                Err(_) if (1..=NAMESPACES_MAX).contains(&nsid) => (),
                Err(status) => return Err(status),
            }
        }
        cns::NAMESPACE_DESCRIPTORS => fill_descriptors(active(view, nsid)?, page),
        cns::ACTIVE_NAMESPACES | cns::ACTIVE_NAMESPACES_CSI => fill_list(view, nsid, page)?,
        cns::CONTROLLER_CSI => fill_controller_nvm(view_of(page)),
        //= NVMe-Base 2.1 §5.1.13
        //# the I/O command set list has one vector per combination: NVM alone
        cns::COMMAND_SETS => page[0] = 1 << csi::NVM,
        _ => return Err(NvmeStatus::never(StatusCode::INVALID_FIELD)),
    }
    Ok(())
}

fn view_of<T: FromBytes + IntoBytes + KnownLayout + Immutable>(page: &mut [u8]) -> &mut T {
    T::mut_from_prefix(page).expect("a page has 4096 bytes").0
}

/// The active namespace of an Identify command.
fn active(view: &HostView, nsid: u32) -> Result<&Namespace, NvmeStatus> {
    //= NVMe-Base 2.1 §3.2.1
    //# an invalid NSID fails with Invalid Namespace or Format
    view.namespace(nsid).ok_or(NvmeStatus::never(StatusCode::INVALID_NAMESPACE))
}

fn fill_controller(subject: &Subject<'_>, page: &mut IdentifyController) {
    text(&mut page.mn, MODEL);
    text(&mut page.fr, FIRMWARE);
    text(&mut page.sn, subject.view.map_or(MODEL, |view| &view.serial));
    page.mdts = MDTS;
    page.cntlid = U16::new(subject.cntlid);
    page.ver = U32::new(VERSION_2_1);
    page.oaes = U32::new(subject.events);
    page.ctratt = U32::new(ctratt::HOST_ID_128 | ctratt::TRAFFIC_KEEP_ALIVE);
    page.acl = u8::try_from(ABORTS_MAX - 1).expect("a few");
    page.aerl = u8::try_from(ASYNC_EVENTS_MAX - 1).expect("a few");
    page.lpa = lpa::EXTENDED_DATA;
    page.kas = U16::new(KAS);
    page.maxcmd = U16::new(QUEUE_ENTRIES_MAX);
    page.sgls = U32::new(sgls::SUPPORTED | sgls::OFFSET | sgls::TRANSPORT);
    page.subnqn = subject.discovery_nqn.to_field();
    match subject.view {
        None => {
            page.cntrltype = ControllerType::Discovery as u8;
            page.dctype = discovery_controller_type::DIRECT;
        }
        Some(view) => {
            (page.ciu, page.cirn) = (subject.instance.ciu, U64::new(subject.instance.cirn));
            page.ccrl = u8::try_from(CROSS_RESETS_MAX).expect("a few");
            fill_io_controller(view, page);
        }
    }
}

/// What only I/O controllers report.
fn fill_io_controller(view: &HostView, page: &mut IdentifyController) {
    page.cntrltype = ControllerType::Io as u8;
    //= NVMe-Base 2.1 §5.1.13.2.1
    //# CMIC: bit 0 several ports, bit 1 several controllers, bit 3 asymmetric access reporting
    page.cmic = 1 << 1 | 1 << 3 | u8::from(view.ports > 1);
    // One read-only firmware slot.
    page.frmw = 1 << 1 | 1;
    page.lpa |= lpa::EFFECTS | lpa::MISCELLANEOUS;
    page.elpe = u8::try_from(ERRORS_KEPT - 1).expect("a few");
    page.cqt = U16::new(u16::try_from(QUIESCE_MS).expect("about a minute"));
    //= NVMe-Base 2.1 §8.1.1
    //# ANATT is not zero; ANAGRPMAX and NANAGRPID cover each group there can be: one per NSID
    page.anatt = ana::TRANSITION_SECONDS;
    page.anacap = ana::CAPABILITIES;
    page.anagrpmax = U32::new(NAMESPACES_MAX);
    page.nanagrpid = U32::new(NAMESPACES_MAX);
    page.sqes = 0x66;
    page.cqes = 0x44;
    page.nn = U32::new(NAMESPACES_MAX);
    page.mnan = U32::new(NAMESPACES_MAX);
    page.oncs = U16::new(
        oncs::COMPARE
            | oncs::DATASET_MANAGEMENT
            | oncs::WRITE_ZEROES
            | oncs::SAVE_SELECT
            | oncs::RESERVATIONS
            | oncs::TIMESTAMP
            | oncs::VERIFY
            | oncs::COPY
            | oncs::NAMESPACE_ZEROES,
    );
    // No volatile write cache; a flush names one namespace (bits 2:1 are 10b).
    page.vwc = 0b10 << 1;
    //= NVMe-NVM 1.1 §2.1.4
    //# AWUN and AWUPF hold for every namespace and every format; each namespace may have more
    let atomic = |namespace: &Namespace| {
        let largest = u64::from(FORMATS[FORMATS.len() - 1]);
        u64::from(namespace.atomic_blocks) * u64::from(namespace.block_size) / largest
    };
    let atomic = view.namespaces().map(atomic).min().unwrap_or(1).max(1) - 1;
    page.awun = U16::new(u16::try_from(atomic).unwrap_or(u16::MAX));
    page.awupf = page.awun;
    page.cdfs = U16::new(copy::FORMATS);
    page.fuses = U16::new(fuses::COMPARE_AND_WRITE);
    // One block, of whatever format.
    page.acwu = U16::new(0);
    page.subnqn = view.nqn.to_field();
    //= NVMe-TCP 1.1 §3.3
    //# in-capsule data starts right behind the entry: ICDOFF is 0
    page.ioccsz = U32::new((SQE_LEN + IN_CAPSULE_MAX) / 16);
    page.iorcsz = U32::new(CQE_LEN / 16);
    page.msdbd = 1;
    // Disconnect is supported.
    page.ofcs = U16::new(1);
}

fn fill_controller_nvm(page: &mut IdentifyControllerNvm) {
    //= NVMe-NVM 1.1 §3.3.5
    //# with Verify in ONCS a longer one than VSL is taken and may be delayed
    page.vsl = VSL;
    //= NVMe-NVM 1.1 §3.3.8
    //# zero in WZSL reports no limit
    page.wzsl = 0;
    //= NVMe-NVM 1.1 §3.3.3
    //# all three zero: as many ranges of any size as a command can name are processed
    (page.dmrl, page.dmrsl, page.dmsl) = (0, U32::new(0), U64::new(0));
}

fn format_of(block_size: u32) -> LbaFormat {
    let lbads = u8::try_from(block_size.trailing_zeros()).expect("at most 32");
    LbaFormat { ms: U16::new(0), lbads, rp: 0 }
}

/// What all namespaces have in common (NSID FFFFFFFFh): the formats alone.
fn fill_common(page: &mut IdentifyNamespace) {
    for (lbaf, block_size) in page.lbaf.iter_mut().zip(FORMATS) {
        *lbaf = format_of(block_size);
    }
    page.nlbaf = 1;
}

fn fill_namespace(view: &HostView, namespace: &Namespace, page: &mut IdentifyNamespace) {
    page.nsze = U64::new(namespace.blocks);
    page.ncap = U64::new(namespace.blocks);
    page.nsfeat = nsfeat::IDS_NOT_REUSED | nsfeat::OPTIMAL_PERFORMANCE;
    page.lbaf[0] = format_of(namespace.block_size);
    page.nmic = 1;
    page.rescap = reservation::capabilities(namespace);
    page.dlfeat = dlfeat::READS_ZEROES | dlfeat::WRITE_ZEROES_DEALLOCATES;
    if namespace.atomic_blocks > 1 {
        //= NVMe-NVM 1.1 §2.1.4
        //# NAWUN and NAWUPF are 0's based and count with NSABP set; no boundary is zero in NABSN,
        //# NABSPF and NABO
        let atomic = u16::try_from(namespace.atomic_blocks - 1).expect("at most 65536 blocks");
        page.nsfeat |= nsfeat::NAMESPACE_ATOMICS;
        page.nawun = U16::new(atomic);
        page.nawupf = U16::new(atomic);
        let fused = u16::try_from(fused::blocks_max(namespace) - 1).expect("at most 4096 bytes");
        page.nacwu = U16::new(fused);
    }
    let blocks = |bytes: u32| {
        let count = (bytes / namespace.block_size).max(1) - 1;
        U16::new(u16::try_from(count).expect("a few kilobytes"))
    };
    let (preferred, extent) = (blocks(PREFERRED_BYTES), blocks(EXTENT_BYTES));
    (page.npwg, page.npwa) = (preferred, preferred);
    (page.npdg, page.npda) = (extent, extent);
    page.nows = extent;
    page.mssrl = U16::new(COPY_RANGE_BLOCKS_MAX);
    page.mcl = U32::new(COPY_BLOCKS_MAX);
    page.msrc = u8::try_from(COPY_RANGES_MAX - 1).expect("at most 256");
    page.anagrpid = U32::new(namespace.nsid);
    //= NVMe-Base 2.1 §8.1.1
    //# without access the utilization and the capacity in bytes are not known, and zero
    if view.state_of(namespace).refusal().is_none() {
        let bytes = namespace.blocks * u64::from(namespace.block_size);
        page.nuse = U64::new(namespace.blocks);
        page.nvmcap[..8].copy_from_slice(&bytes.to_le_bytes());
    }
    page.nguid = namespace.nguid();
    page.eui64 = namespace.eui64();
}

fn fill_namespace_nvm(page: &mut IdentifyNamespaceNvm) {
    // No protection information: everything stays zero.
    page.pic = 0;
}

fn fill_independent(namespace: &Namespace, page: &mut IdentifyNamespaceIndependent) {
    page.nsfeat = nsfeat::IDS_NOT_REUSED;
    page.nmic = 1;
    page.rescap = reservation::capabilities(namespace);
    page.anagrpid = U32::new(namespace.nsid);
    // NRDY.
    page.nstat = 1;
}

//= NVMe-Base 2.1 §5.1.13
//# each identifier type once; the command set's identifier is there when CAP.CSS says so
fn fill_descriptors(namespace: &Namespace, page: &mut [u8]) {
    let (nguid, eui64) = (namespace.nguid(), namespace.eui64());
    let identifiers: [(u8, &[u8]); 4] = [
        (nidt::EUI64, &eui64),
        (nidt::NGUID, &nguid),
        (nidt::UUID, &namespace.uuid),
        (nidt::CSI, &[csi::NVM]),
    ];
    let mut at = 0;
    for (nidt, identifier) in identifiers {
        let nidl = u8::try_from(identifier.len()).expect("at most 16");
        let header = NamespaceDescriptorHeader { nidt, nidl, reserved2: [0; 2] };
        page[at..at + 4].copy_from_slice(header.as_bytes());
        page[at + 4..at + 4 + identifier.len()].copy_from_slice(identifier);
        at += 4 + identifier.len();
    }
}

//= NVMe-Base 2.1 §5.1.13
//# active NSIDs larger than the one in the command; FFFFFFFEh and FFFFFFFFh are invalid
fn fill_list(view: &HostView, after: u32, page: &mut [u8]) -> Result<(), NvmeStatus> {
    if after >= u32::MAX - 1 {
        return Err(NvmeStatus::never(StatusCode::INVALID_NAMESPACE));
    }
    let list: &mut NamespaceList = view_of(page);
    let active = view.namespaces().map(|namespace| namespace.nsid).filter(|&nsid| nsid > after);
    for (place, nsid) in list.nsid.iter_mut().zip(active) {
        *place = U32::new(nsid);
    }
    Ok(())
}

/// ASCII, padded with spaces.
pub(crate) fn text(field: &mut [u8], text: &str) {
    field.fill(b' ');
    let len = text.len().min(field.len());
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Hosts, NamespaceHandle, Port, Reach, Subsystem};
    use crate::target::Target;
    use std::fmt::Write;
    use std::sync::Arc;
    use zerocopy::FromZeros;

    /// The lines of 16 bytes that are not all zero.
    fn dump(table: &mut String, name: &str, page: &[u8]) {
        writeln!(table, "{name}").unwrap();
        for (i, line) in page.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|b| *b > 0))
        {
            write!(table, "{:04x}", i * 16).unwrap();
            line.iter().for_each(|byte| write!(table, " {byte:02x}").unwrap());
            writeln!(table).unwrap();
        }
    }

    //= NVMe-Base 2.1 §5.1.13 type=test
    //# each data structure, byte by byte
    #[test]
    fn identify_data_matches_the_golden_bytes() {
        let nqn = Nqn::new("nqn.2026-11.io.example:vol").unwrap();
        let namespace = |nsid, block_size| Namespace {
            nsid,
            handle: NamespaceHandle(nsid),
            uuid: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
            block_size,
            blocks: 0x1_2345,
            atomic_blocks: 65536 / block_size,
            reach: Reach { persists: block_size == 512, ..Reach::default() },
        };
        let namespaces = vec![namespace(1, 512), namespace(256, 4096)];
        let hosts = Hosts::Any;
        let config = Config {
            ports: vec![
                Port { id: 1, address: "192.0.2.1:4420".parse().unwrap() },
                Port { id: 2, address: "192.0.2.2:4420".parse().unwrap() },
            ],
            subsystems: vec![Subsystem { nqn, serial: "HF42".into(), hosts, namespaces }],
            ..Config::default()
        };
        let snapshot = Target::new(config).unwrap().snapshot();
        let discovery_nqn = snapshot.discovery_nqn;
        let local = "192.0.2.1:4420".parse().unwrap();
        let subsystem = Arc::clone(snapshot.subsystem(&nqn).unwrap());
        let view = HostView::new(subsystem, nqn, local, &snapshot);
        let view = Some(&view);
        let instance = Instance { ciu: 3, cirn: 0x1122_3344_5566_7788 };
        let io = Subject { cntlid: 7, view, discovery_nqn, events: 0x900, instance };
        let discovery = Subject { view: None, events: 1 << 31, ..io };
        let mut table = String::new();
        let mut add = |name: &str, subject: &Subject<'_>, cns: u8, nsid: u32| {
            let mut sqe = Sqe::new_zeroed();
            (sqe.nsid, sqe.cdw10) = (U32::new(nsid), U32::new(cns.into()));
            let mut page = vec![0; 4096];
            fill(subject, &sqe, &mut page).unwrap();
            dump(&mut table, name, &page);
        };
        // The firmware revision follows the version of the crate, so it is left out of the file.
        add("CNS 01h", &io, cns::CONTROLLER, 0);
        add("CNS 01h, discovery", &discovery, cns::CONTROLLER, 0);
        add("CNS 00h, NSID 1", &io, cns::NAMESPACE, 1);
        add("CNS 00h, NSID 256", &io, cns::NAMESPACE, 256);
        add("CNS 00h, NSID FFFFFFFFh", &io, cns::NAMESPACE, u32::MAX);
        add("CNS 02h", &io, cns::ACTIVE_NAMESPACES, 0);
        add("CNS 03h", &io, cns::NAMESPACE_DESCRIPTORS, 1);
        add("CNS 05h", &io, cns::NAMESPACE_CSI, 1);
        add("CNS 06h", &io, cns::CONTROLLER_CSI, 0);
        add("CNS 08h", &io, cns::NAMESPACE_INDEPENDENT, 1);
        add("CNS 1Ch", &io, cns::COMMAND_SETS, 0);
        let golden = include_str!("../testdata/identify.golden");
        assert_eq!(table, golden, "if the change is meant, put the left side into the file");
    }
}
