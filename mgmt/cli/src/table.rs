//! Tables and lists for people.

use std::io::{Result, Write};

use api::{
    Access, ByteLen, ChangedRange, CheckReport, Event, Export, Health, Host, HostAccess, LogAdvice,
    NodeInfo, Referral, Scrub, Session, Snapshot, Store, Volume,
};
use comfy_table::{CellAlignment, Table};

use crate::progress::percent;
use crate::time::utc;

/// Prints rows under a heading, or `empty` when there are none.
fn print<const N: usize>(
    out: &mut dyn Write,
    heading: [&str; N],
    numbers: &[usize],
    rows: impl IntoIterator<Item = [String; N]>,
    empty: &str,
) -> Result<()> {
    let rows: Vec<_> = rows.into_iter().collect();
    if rows.is_empty() {
        return writeln!(out, "{empty}");
    }
    // A column without a single value (mostly the reasons) only takes room.
    let shown = |index: &usize| rows.iter().any(|row| !row[*index].is_empty());
    let columns: Vec<usize> = (0..N).filter(shown).collect();
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(columns.iter().map(|&index| heading[index]));
    for row in &rows {
        table.add_row(columns.iter().map(|&index| row[index].as_str()));
    }
    for (column, index) in table.column_iter_mut().zip(&columns) {
        let left = u16::from(*index > 0);
        column.set_padding((left, 1));
        if numbers.contains(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for line in table.to_string().lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Prints one `key: value` a line, values aligned; empty values are left out.
fn print_fields(out: &mut dyn Write, fields: &[(&str, String)]) -> Result<()> {
    let width = fields.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + 1;
    for (key, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{:width$} {value}", format!("{key}:"))?;
    }
    Ok(())
}

/// Rates and latencies of a measurement; latencies in microseconds.
pub(crate) fn latencies(
    out: &mut dyn Write,
    rows: impl IntoIterator<Item = [String; 11]>,
) -> Result<()> {
    let heading =
        ["US", "IOPS", "MIB/S", "MEAN", "P50", "P90", "P95", "P99", "P99.9", "P99.99", "MAX"];
    print(out, heading, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], rows, "")
}

pub(crate) fn node(out: &mut dyn Write, info: &NodeInfo) -> Result<()> {
    let cores: Vec<_> = info.reactor_cores.iter().map(ToString::to_string).collect();
    let mut fields = vec![
        ("name", info.name.clone()),
        ("uuid", info.uuid.to_string()),
        ("version", info.version.clone()),
        ("started", utc(info.started_ms)),
        ("health", info.health.as_str().to_owned()),
    ];
    if let Health::Degraded(complaints) = &info.health {
        fields.extend(complaints.iter().map(|complaint| ("complaint", complaint.clone())));
    }
    fields.extend([
        ("cores", cores.join(", ")),
        ("idle", info.idle.clone()),
        ("I/O backend", info.io_backend.clone()),
        ("NVMe/TCP", info.nvme_tcp.join(", ")),
        ("discovery", info.discovery.join(", ")),
    ]);
    print_fields(out, &fields)
}

pub(crate) fn event(out: &mut dyn Write, event: &Event) -> Result<()> {
    let Event { sequence, time_ms, kind, severity, subject, message, request_id } = event;
    write!(out, "{sequence:>4}  {}  {severity:<7}  {kind}", utc(*time_ms))?;
    if !subject.is_empty() {
        write!(out, "  {subject}")?;
    }
    write!(out, ": {message}")?;
    if !request_id.is_empty() {
        write!(out, " (request {request_id})")?;
    }
    writeln!(out)
}

pub(crate) fn stores(out: &mut dyn Write, stores: &[Store]) -> Result<()> {
    let heading = ["NAME", "STATE", "CAPACITY", "USED", "VOLUMES", "BACKEND", "REASON", "DEVICE"];
    let rows = stores.iter().map(|store| {
        [
            store.name.to_string(),
            store.state.to_string(),
            approximate(store.capacity.bytes()),
            approximate(store.used.bytes()),
            store.volumes.to_string(),
            store.backend.clone(),
            store.reason.clone(),
            store.device.to_string(),
        ]
    });
    print(out, heading, &[2, 3, 4], rows, "no stores")
}

/// What a check found, and how much it looked at.
pub(crate) fn check(out: &mut dyn Write, report: &CheckReport) -> Result<()> {
    for finding in &report.findings {
        let repaired = if finding.repaired { " (mended)" } else { "" };
        writeln!(out, "{}: {}{repaired}", finding.kind, finding.message)?;
    }
    if report.dropped > 0 {
        writeln!(out, "and {} more", report.dropped)?;
    }
    let fields = [
        ("volumes", report.volumes.to_string()),
        ("snapshots", report.snapshots.to_string()),
        ("metadata", approximate(report.metadata.bytes())),
        ("data", approximate(report.data.bytes())),
        ("leaked", approximate(report.leaked.bytes())),
        ("given back", approximate(report.freed.bytes())),
    ];
    print_fields(out, &fields)?;
    if report.is_clean() {
        return writeln!(out, "maps, owners and space agree");
    }
    let found = u64::try_from(report.findings.len()).unwrap_or(u64::MAX);
    let mended = report.findings.iter().filter(|finding| finding.repaired).count();
    let found = found.saturating_add(report.dropped);
    writeln!(out, "{found} finding(s), {mended} mended")
}

pub(crate) fn scrub(out: &mut dyn Write, scrub: &Scrub) -> Result<()> {
    let Scrub { store, policy, progress } = scrub;
    let state = match (policy.paused, progress.running) {
        (true, _) => "paused",
        (false, true) => "running",
        (false, false) => "waiting",
    };
    let under_way = progress.running || progress.covered > 0;
    let pass = |text: String| if under_way { text } else { String::new() };
    let known = |text: Option<String>| text.unwrap_or_default();
    let damage = |found: u64, healed: u64| format!("{found} damaged, {healed} of that healed");
    let covered = format!(
        "{} of {} ({}%)",
        approximate(progress.covered),
        approximate(progress.total),
        percent(progress.covered, progress.total)
    );
    let last = if progress.passes == 0 {
        String::new()
    } else {
        damage(progress.last_found, progress.last_healed)
    };
    let fields = [
        ("store", store.to_string()),
        ("state", state.to_owned()),
        ("rate", format!("{}/s", ByteLen::from_bytes(policy.rate.bytes()))),
        ("this pass", pass(covered)),
        ("found", pass(damage(progress.found, progress.healed))),
        ("ends in", known(progress.remaining_seconds.map(duration))),
        ("next pass in", known(progress.next_seconds.map(duration))),
        ("passes", progress.passes.to_string()),
        ("last ended", known(progress.finished_ms.map(utc))),
        ("last found", last),
    ];
    print_fields(out, &fields)
}

/// Says which log would do (`asked`), or what the log at hand does.
pub(crate) fn advice(out: &mut dyn Write, advice: &LogAdvice, asked: bool) -> Result<()> {
    let LogAdvice { log, seconds_until_slow, is_enough } = advice;
    let slow = match seconds_until_slow {
        None => "never: the drive keeps up".to_owned(),
        Some(seconds) => format!("after {seconds} s"),
    };
    let enough = if *is_enough { "yes" } else { "no" };
    let fields = [
        (if asked { "log needed" } else { "log" }, log.to_string()),
        ("writers are slowed", slow),
        ("bears the burst", if asked { String::new() } else { enough.to_owned() }),
    ];
    print_fields(out, &fields)?;
    if asked {
        writeln!(out, "use: holdfast store init --log-size {log}")?;
    }
    Ok(())
}

pub(crate) fn volumes(out: &mut dyn Write, volumes: &[Volume]) -> Result<()> {
    let heading = ["NAME", "STORE", "STATE", "SIZE", "USED", "BLOCK", "EXPORTED", "REASON"];
    let rows = volumes.iter().map(|volume| {
        [
            volume.name.to_string(),
            volume.store.to_string(),
            volume.state.to_string(),
            volume.size.to_string(),
            approximate(volume.used.bytes()),
            volume.block_size.to_string(),
            yes_or_no(volume.exported),
            volume.reason.clone(),
        ]
    });
    print(out, heading, &[3, 4, 5], rows, "no volumes")
}

pub(crate) fn volume(out: &mut dyn Write, volume: &Volume) -> Result<()> {
    let fields = [
        ("name", volume.name.to_string()),
        ("uuid", volume.uuid.to_string()),
        ("store", volume.store.to_string()),
        ("state", volume.state.to_string()),
        ("reason", volume.reason.clone()),
        ("size", volume.size.to_string()),
        ("block size", volume.block_size.to_string()),
        ("used", approximate(volume.used.bytes())),
        ("exported", yes_or_no(volume.exported)),
        ("snapshots", volume.snapshots.to_string()),
        ("limits", volume.qos.to_string()),
    ];
    print_fields(out, &fields)
}

pub(crate) fn snapshots(out: &mut dyn Write, snapshots: &[Snapshot]) -> Result<()> {
    let heading = ["NAME", "STORE", "SIZE", "REFERENCED", "UNIQUE", "SHARED"];
    let rows = snapshots.iter().map(|snapshot| {
        [
            snapshot.path.to_string(),
            snapshot.store.to_string(),
            snapshot.size.to_string(),
            referenced(snapshot),
            snapshot.unique.map(|unique| approximate(unique.bytes())).unwrap_or_default(),
            snapshot.shared().map(|shared| approximate(shared.bytes())).unwrap_or_default(),
        ]
    });
    print(out, heading, &[2, 3, 4, 5], rows, "no snapshots")
}

pub(crate) fn snapshot(out: &mut dyn Write, snapshot: &Snapshot) -> Result<()> {
    let size = |size: Option<ByteLen>| size.map(|size| approximate(size.bytes()));
    let fields = [
        ("name", snapshot.path.to_string()),
        ("uuid", snapshot.uuid.to_string()),
        ("store", snapshot.store.to_string()),
        ("number", snapshot.number.to_string()),
        ("size", snapshot.size.to_string()),
        ("referenced", referenced(snapshot)),
        ("unique", size(snapshot.unique).unwrap_or_default()),
        ("shared", size(snapshot.shared()).unwrap_or_default()),
    ];
    print_fields(out, &fields)
}

/// A snapshot that is in the log only has no map to count in.
fn referenced(snapshot: &Snapshot) -> String {
    match snapshot.materialised {
        true => approximate(snapshot.referenced.bytes()),
        false => "in the log".to_owned(),
    }
}

/// Changed ranges, printed as they come.
#[derive(Default)]
pub(crate) struct Changes {
    ranges: u64,
    bytes: u64,
}

impl Changes {
    pub(crate) fn add(&mut self, out: &mut dyn Write, range: &ChangedRange) -> Result<()> {
        if self.ranges == 0 {
            writeln!(out, "{:>20}  {:>16}", "OFFSET", "LENGTH")?;
        }
        self.ranges += 1;
        self.bytes = self.bytes.saturating_add(range.length);
        writeln!(out, "{:>20}  {:>16}", range.offset, range.length)
    }

    pub(crate) fn end(&self, out: &mut dyn Write) -> Result<()> {
        match self.ranges {
            0 => writeln!(out, "nothing changed"),
            ranges => writeln!(out, "{} changed in {ranges} range(s)", approximate(self.bytes)),
        }
    }
}

pub(crate) fn exports(out: &mut dyn Write, exports: &[Export]) -> Result<()> {
    let heading =
        ["VOLUME", "ONLINE", "NQN", "NSID", "PATHS", "HOSTS", "SESSIONS", "LISTENERS", "REASON"];
    let rows = exports.iter().map(|export| {
        [
            export.volume.to_string(),
            yes_or_no(export.online),
            export.nqn.to_string(),
            export.nsid.to_string(),
            paths_in_short(&export.paths),
            hosts_in_short(&export.access),
            export.sessions.to_string(),
            export.listeners.join(", "),
            export.reason.clone(),
        ]
    });
    print(out, heading, &[3, 6], rows, "no exports")
}

pub(crate) fn hosts(out: &mut dyn Write, export: &Export) -> Result<()> {
    match &export.access {
        HostAccess::Any => writeln!(out, "any host may connect"),
        HostAccess::Listed(hosts) if hosts.is_empty() => writeln!(out, "no host may connect"),
        HostAccess::Listed(hosts) => hosts.iter().try_for_each(|host| writeln!(out, "{host}")),
    }
}

pub(crate) fn keyed_hosts(out: &mut dyn Write, hosts: &[Host]) -> Result<()> {
    let heading = ["HOST", "CTRL KEY", "HASH", "DHGROUP"];
    let rows = hosts.iter().map(|host| {
        let any = || "any".to_owned();
        [
            host.nqn.to_string(),
            yes_or_no(host.has_controller_key),
            host.hash.map_or_else(any, |hash| hash.to_string()),
            host.group.map_or_else(any, |group| group.to_string()),
        ]
    });
    print(out, heading, &[], rows, "no hosts with keys")
}

pub(crate) fn sessions(out: &mut dyn Write, sessions: &[Session]) -> Result<()> {
    let heading = ["VOLUME", "CNTLID", "QUEUES", "PEER", "HOST"];
    let rows = sessions.iter().map(|session| {
        let volume = session.volume.as_ref();
        [
            volume.map_or_else(|| "(discovery)".to_owned(), ToString::to_string),
            session.controller_id.to_string(),
            session.io_queues.to_string(),
            session.peer.clone(),
            session.host.clone(),
        ]
    });
    print(out, heading, &[1, 2], rows, "no sessions")
}

/// The state of all paths, and of those through single listeners where they are worse.
fn paths_in_short(paths: &Access) -> String {
    let worse = paths.listeners.iter().filter(|(_, state)| *state > paths.state);
    let worse: String = worse.map(|(listener, state)| format!(" ({listener}: {state})")).collect();
    format!("{}{worse}", paths.state)
}

pub(crate) fn referrals(out: &mut dyn Write, referrals: &[Referral]) -> Result<()> {
    let rows = referrals.iter().map(|referral| {
        let nqn = referral.nqn().map_or_else(|| "(well-known)".to_owned(), ToString::to_string);
        [referral.address().to_string(), nqn]
    });
    print(out, ["ADDRESS", "NQN"], &[], rows, "no referrals")
}

fn hosts_in_short(access: &HostAccess) -> String {
    match access {
        HostAccess::Any => "any".to_owned(),
        HostAccess::Listed(hosts) if hosts.is_empty() => "none".to_owned(),
        HostAccess::Listed(hosts) => hosts.len().to_string(),
    }
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// Seconds as people say them, to two units.
fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, minutes) => format!("{minutes} min {rest} s"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// A length to three or four digits: `1.4TiB`. For exact numbers there is JSON.
fn approximate(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut whole, mut tenths, mut unit) = (bytes, 0, "B");
    for name in units {
        if whole < 1024 {
            break;
        }
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit = name;
    }
    if tenths == 0 { format!("{whole}{unit}") } else { format!("{whole}.{tenths}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        let cases =
            [(0, "0 s"), (61, "1 min 1 s"), (3660, "1 h 1 min"), (7 * 86_400 - 1, "6 d 23 h")];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn approximate_lengths_are_short() {
        let cases = [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            ((1 << 40) - 1, "1023.9GiB"),
            (u64::MAX, "15.9EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(approximate(bytes), text);
        }
    }
}
