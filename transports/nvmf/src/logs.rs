//! Get Log Page.

use std::net::SocketAddr;

use bdev::Instant;
use nvme_spec::{
    ChangedNamespaces, EffectsLog, ErrorEntry, FidEffectsLog, FirmwareSlots, NvmeStatus, SmartLog,
    Sqe, StatusCode, SupportedLogPages, U32, csi, effects, feature, fid_effects, lid,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::controller::Kind;
use crate::cross_reset::CrossResets;
use crate::health::{Healths, SPARE_THRESHOLD};
use crate::identify::text;
use crate::limits::ERRORS_KEPT;
use crate::notices::{
    EVENT_ANA, EVENT_CROSS_RESET, EVENT_DISCOVERY, EVENT_NAMESPACES, EVENT_RELIABILITY,
    EVENT_RESERVATION, EVENT_SPARE,
};
use crate::registry::{Hold, Identity, Registry};
use crate::reservation::Inbox;
use crate::target::Snapshot;
use crate::view::HostView;
use crate::{ana, commands, discovery, features};

/// Log pages of I/O controllers.
const IO_PAGES: [u8; 10] = [
    lid::SUPPORTED,
    lid::ERROR,
    lid::SMART,
    lid::FIRMWARE_SLOT,
    lid::CHANGED_NAMESPACES,
    lid::EFFECTS,
    lid::ANA,
    lid::FID_EFFECTS,
    lid::CROSS_RESET,
    lid::RESERVATION,
];

/// Log pages of discovery controllers.
const DISCOVERY_PAGES: [u8; 2] = [lid::SUPPORTED, lid::DISCOVERY];

const NS_PER_HOUR: u64 = 3600 * 1_000_000_000;

/// What a Get Log Page asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogRequest {
    lid: u8,
    nsid: u32,
    /// LSP: log specific.
    specific: u8,
    /// CSI: the command set that the page is about.
    csi: u8,
    /// RAE.
    pub(crate) retain_event: bool,
    /// LPO, bytes.
    offset: u64,
}

impl LogRequest {
    //= NVMe-Base 2.1 §5.1.12
    //# LPO is in bytes and dword aligned; offsets into lists (OT) are not offered
    pub(crate) fn of(sqe: &Sqe) -> Result<LogRequest, NvmeStatus> {
        let [lid, high, ..] = sqe.cdw10.get().to_le_bytes();
        let offset = u64::from(sqe.cdw13.get()) << 32 | u64::from(sqe.cdw12.get());
        let offset_type = sqe.cdw14.get() & 1 << 23;
        if !offset.is_multiple_of(4) || offset_type != 0 {
            return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
        }
        let (specific, retain_event) = (high & 0x7f, high & 0x80 != 0);
        let [.., csi] = sqe.cdw14.get().to_le_bytes();
        Ok(LogRequest { lid, nsid: sqe.nsid.get(), specific, csi, retain_event, offset })
    }
}

impl LogRequest {
    /// RMC of the Cross-Controller Reset log page: complete entries are removed.
    pub(crate) fn removes_resets(&self) -> bool {
        self.lid == lid::CROSS_RESET && self.specific & 1 != 0
    }
}

/// Where log pages take their contents from.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) healths: &'a Healths,
    pub(crate) hold: Hold,
    pub(crate) view: Option<&'a HostView>,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) identity: &'a Identity,
    pub(crate) local: SocketAddr,
    pub(crate) resets: &'a CrossResets,
    pub(crate) now: Instant,
}

/// A part of a log page: what lies at an offset of the page is put in its place, or dropped.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    out: &'a mut [u8],
    offset: u64,
}

impl Window<'_> {
    /// Puts `bytes`, which lie at `at` of the page.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        let window_end = self.offset + self.out.len() as u64;
        let (start, end) = (at.max(self.offset), (at + bytes.len() as u64).min(window_end));
        if start < end {
            let place = |value: u64| usize::try_from(value).expect("inside the window");
            let from = &bytes[place(start - at)..place(end - at)];
            self.out[place(start - self.offset)..place(end - self.offset)].copy_from_slice(from);
        }
    }

    /// Whether any of `len` bytes at `at` is wanted.
    pub(crate) fn wants(&self, at: u64, len: u64) -> bool {
        at < self.offset + self.out.len() as u64 && at + len > self.offset
    }
}

/// A window on a page of `len` bytes.
//= NVMe-Base 2.1 §5.1.12
//# an offset beyond the page is an invalid field
fn window<'a>(
    request: &LogRequest,
    page: &'a mut [u8],
    len: usize,
) -> Result<Window<'a>, NvmeStatus> {
    if request.offset > len as u64 {
        return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
    }
    Ok(Window { out: page, offset: request.offset })
}

fn put_whole<T: IntoBytes + zerocopy::Immutable>(
    request: &LogRequest,
    page: &mut [u8],
    whole: &T,
) -> Result<(), NvmeStatus> {
    window(request, page, size_of::<T>())?.put(0, whole.as_bytes());
    Ok(())
}

/// Fills a log page of an I/O controller; the event that reading it acknowledges.
pub(crate) fn fill_io(
    source: &Source<'_>,
    request: &LogRequest,
    page: &mut [u8],
) -> Result<u32, NvmeStatus> {
    let view = source.view.expect("I/O controllers belong to a subsystem");
    check_page(&IO_PAGES, request.lid)?;
    match request.lid {
        lid::SUPPORTED => put_whole(request, page, &supported(&IO_PAGES))?,
        lid::ERROR => errors(source, request, page)?,
        lid::SMART => {
            //= NVMe-Base 2.1 §5.1.12
            //# SMART per namespace is not offered (LPA bit 0)
            if !matches!(request.nsid, 0 | u32::MAX) {
                return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
            }
            put_whole(request, page, &smart(source, view))?;
            return Ok(EVENT_SPARE | EVENT_RELIABILITY);
        }
        lid::FIRMWARE_SLOT => put_whole(request, page, &firmware())?,
        lid::CHANGED_NAMESPACES => {
            put_whole(request, page, &changed(source, !request.retain_event))?;
            return Ok(EVENT_NAMESPACES);
        }
        lid::EFFECTS if request.csi != csi::NVM => {
            return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
        }
        lid::EFFECTS => put_whole(request, page, &io_effects())?,
        lid::FID_EFFECTS => put_whole(request, page, &feature_effects())?,
        lid::ANA => {
            let groups_only = request.specific & GROUPS_ONLY != 0;
            let mut window = window(request, page, ana::log_len(view, groups_only))?;
            ana::fill(view, groups_only, &mut window);
            return Ok(EVENT_ANA);
        }
        lid::CROSS_RESET => {
            source.resets.fill(&mut window(request, page, source.resets.log_len())?);
            return Ok(EVENT_CROSS_RESET);
        }
        lid::RESERVATION => {
            //= NVMe-Base 2.1 §5.1.12
            //# the oldest reservation notification; reading it without RAE makes room for the next
            let take = !request.retain_event;
            let page_of = |inbox: &mut Inbox| inbox.read(take);
            put_whole(request, page, &source.registry.with_inbox(source.hold, page_of))?;
            return Ok(EVENT_RESERVATION);
        }
        _ => unreachable!("the table has no other page"),
    }
    Ok(0)
}

/// Fills a log page of a discovery controller; the event that reading it acknowledges.
pub(crate) fn fill_discovery(
    source: &Source<'_>,
    request: &LogRequest,
    page: &mut [u8],
) -> Result<u32, NvmeStatus> {
    check_page(&DISCOVERY_PAGES, request.lid)?;
    match request.lid {
        lid::SUPPORTED => put_whole(request, page, &supported(&DISCOVERY_PAGES))?,
        lid::DISCOVERY => {
            let host = &source.identity.hostnqn;
            let len = discovery::log_len(source.snapshot, host, source.local);
            let mut window = window(request, page, len)?;
            discovery::fill(source.snapshot, host, source.local, &mut window);
            return Ok(EVENT_DISCOVERY);
        }
        _ => unreachable!("the table has no other page"),
    }
    Ok(0)
}

/// Refuses a page that the table, which LID 00h is made of, does not have.
fn check_page(pages: &[u8], lid: u8) -> Result<(), NvmeStatus> {
    let known = pages.contains(&lid);
    if known { Ok(()) } else { Err(NvmeStatus::never(StatusCode::INVALID_LOG_PAGE)) }
}

fn supported(pages: &[u8]) -> SupportedLogPages {
    let mut log = SupportedLogPages::new_zeroed();
    for &lid in pages {
        log.lid[usize::from(lid)] = U32::new(1);
    }
    log
}

fn errors(source: &Source<'_>, request: &LogRequest, page: &mut [u8]) -> Result<(), NvmeStatus> {
    const ENTRY: usize = size_of::<ErrorEntry>();
    let mut window = window(request, page, ERRORS_KEPT * ENTRY)?;
    for (at, entry) in source.registry.errors(source.hold).entries().enumerate() {
        window.put((at * ENTRY) as u64, entry.as_bytes());
    }
    Ok(())
}

fn smart(source: &Source<'_>, view: &HostView) -> SmartLog {
    let wide = |value: u64| u128::from(value).to_le_bytes();
    // Thousands of 512 bytes, rounded up.
    let units = |bytes: u64| wide(bytes.div_ceil(512_000));
    let traffic = source.registry.traffic(source.hold);
    let age = source.now.as_ns().saturating_sub(source.registry.created(source.hold).as_ns());
    let mut log = SmartLog::new_zeroed();
    // A controller without a body: no temperature, no wear, and no power but its association's.
    let health = source.healths.of(view);
    log.critical_warning = health.warnings();
    log.available_spare = health.spare;
    log.available_spare_threshold = SPARE_THRESHOLD;
    log.data_units_read = units(traffic.read_bytes);
    log.data_units_written = units(traffic.written_bytes);
    log.host_reads = wide(traffic.reads);
    log.host_writes = wide(traffic.writes);
    log.power_on_hours = wide(age / NS_PER_HOUR);
    log.error_entries = wide(source.registry.errors(source.hold).count());
    log
}

fn firmware() -> FirmwareSlots {
    let mut log = FirmwareSlots::new_zeroed();
    log.afi = 1;
    text(&mut log.frs[0], env!("CARGO_PKG_VERSION"));
    log
}

//= NVMe-Base 2.1 §5.1.12
//# NSIDs in increasing order; the overflow entry FFFFFFFFh is for more than 1024, which no
//# subsystem has
fn changed(source: &Source<'_>, clear: bool) -> ChangedNamespaces {
    let set = source.registry.changed_namespaces(source.hold, clear);
    let mut log = ChangedNamespaces::new_zeroed();
    for (place, nsid) in log.nsid.iter_mut().zip(set.iter()) {
        *place = U32::new(nsid);
    }
    log
}

fn io_effects() -> EffectsLog {
    let mut log = EffectsLog::new_zeroed();
    for (table, rows) in [(&mut log.acs, commands::ADMIN), (&mut log.iocs, commands::IO)] {
        for &(opcode, bits) in rows {
            table[usize::from(opcode)] = U32::new(effects::SUPPORTED | bits);
        }
    }
    log
}

fn feature_effects() -> FidEffectsLog {
    let mut log = FidEffectsLog::new_zeroed();
    for fid in 0..=u8::MAX {
        if features::support(Kind::Io, fid).is_some() {
            let scope = match fid {
                feature::RESERVATION_MASK | feature::RESERVATION_PERSISTENCE => {
                    fid_effects::SCOPE_NAMESPACE
                }
                _ => fid_effects::SCOPE_CONTROLLER,
            };
            let bits = fid_effects::SUPPORTED | scope;
            log.fid[usize::from(fid)] = U32::new(bits);
        }
    }
    log
}

/// RGO of the ANA log page: groups only, without their namespaces.
const GROUPS_ONLY: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_shows_any_part_of_a_page() {
        let whole: Vec<u8> = (0..100).collect();
        for offset in [0, 4, 48, 96, 100] {
            for len in [4, 52, 100, 200] {
                let mut out = vec![0xee; len];
                let mut window = Window { out: &mut out, offset };
                window.put(0, &whole[..40]);
                window.put(40, &whole[40..]);
                let start = usize::try_from(offset).unwrap();
                let mut expected: Vec<u8> = whole.iter().skip(start).take(len).copied().collect();
                expected.resize(len, 0xee);
                assert_eq!(out, expected);
            }
        }
    }
}
