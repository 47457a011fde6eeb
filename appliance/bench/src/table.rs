//! Reports as Markdown: printed, recorded between two markers, read back and compared.

use std::fmt::Write as _;

use thiserror::Error;

use crate::report::{Context, Fact, Instructions, Report, Row};

/// The line before the recorded table.
pub const BEGIN: &str = "<!-- bench: begin -->";
/// The line after the recorded table.
pub const END: &str = "<!-- bench: end -->";

const ROW_HEAD: &str = "| device | workload | IOPS | MiB/s | p50 us | p99 us | p99.9 us | \
                        CPU ns/IO | busy % | instr/IO | calls/IO |";
const ROW_RULE: &str = "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|";
const FACT_HEAD: &str = "| measure | value | unit |";
const FACT_RULE: &str = "|---|--:|---|";
const UNKNOWN: &str = "-";
const CALLGRIND: &str = "cg";
const CALLGRIND_IN_MEMORY: &str = "cg-ram";

/// Why a document cannot take a table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TableError {
    /// The document lacks a marker, or has them in the wrong order.
    #[error("the document has no line {BEGIN:?} followed by a line {END:?}")]
    Markers,
}

/// The report as Markdown.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let Context { machine, kernel, load, date, commit, command, uncounted } = &report.context;
    text += &format!("Machine: {machine}  \nKernel: {kernel}  \nLoad: {load}  \nDate: {date}  \n");
    text += &format!("Commit: {commit}  \nCommand: `{command}`\n");
    if let Some(why) = uncounted {
        text += &format!("\nInstructions were not counted: {why}.\n");
    }
    if !report.rows.is_empty() {
        text += &format!("\n{ROW_HEAD}\n{ROW_RULE}\n");
        report.rows.iter().for_each(|row| text += &render_row(row));
    }
    if !report.facts.is_empty() {
        text += &format!("\n{FACT_HEAD}\n{FACT_RULE}\n");
        for Fact { name, value_milli, unit } in &report.facts {
            text += &format!("| {name} | {} | {unit} |\n", thousandths(*value_milli));
        }
    }
    text
}

fn render_row(row: &Row) -> String {
    let Row { device, workload, iops, mib_per_s, .. } = row;
    let mut text = format!("| {device} | {workload} | {iops} | {mib_per_s} ");
    for ns in [row.p50_ns, row.p99_ns, row.p999_ns] {
        let _ = write!(text, "| {} ", tenths(ns / 100));
    }
    let number = |number: Option<u64>| number.map_or(UNKNOWN.to_owned(), |n| n.to_string());
    let calls = row.calls_percent.map_or(UNKNOWN.to_owned(), hundredths);
    let _ = write!(text, "| {} | {} ", number(row.cpu_ns), number(row.busy_percent));
    let instructions = row.instructions.map_or(UNKNOWN.to_owned(), render_instructions);
    let _ = writeln!(text, "| {instructions} | {calls} |");
    text
}

fn render_instructions(instructions: Instructions) -> String {
    match instructions {
        Instructions::Hardware(count) => count.to_string(),
        Instructions::Callgrind(count) => format!("{count} {CALLGRIND}"),
        Instructions::CallgrindInMemory(count) => format!("{count} {CALLGRIND_IN_MEMORY}"),
    }
}

fn parse_instructions(text: &str) -> Option<Instructions> {
    let (count, by) = text.split_once(' ').unwrap_or((text, ""));
    let count = count.parse().ok()?;
    match by {
        "" => Some(Instructions::Hardware(count)),
        CALLGRIND => Some(Instructions::Callgrind(count)),
        CALLGRIND_IN_MEMORY => Some(Instructions::CallgrindInMemory(count)),
        _ => None,
    }
}

/// The rows and facts of a document that holds a rendered report. Lines that are not of a table are
/// skipped, so that an older or a hand-edited document still compares.
pub fn parse(text: &str) -> Report {
    let mut report = Report::default();
    let mut in_rows = false;
    for line in recorded(text).unwrap_or(text).lines() {
        match line {
            ROW_HEAD => in_rows = true,
            FACT_HEAD => in_rows = false,
            ROW_RULE | FACT_RULE => {}
            _ => {
                let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
                if in_rows {
                    report.rows.extend(parse_row(&cells));
                } else {
                    report.facts.extend(parse_fact(&cells));
                }
            }
        }
    }
    report
}

fn parse_row(cells: &[&str]) -> Option<Row> {
    let [device, workload, iops, mib, p50, p99, p999, cpu, busy, instructions, calls] = cells
    else {
        return None;
    };
    Some(Row {
        device: (*device).to_owned(),
        workload: (*workload).to_owned(),
        iops: iops.parse().ok()?,
        mib_per_s: mib.parse().ok()?,
        p50_ns: decimal(p50, 3)?,
        p99_ns: decimal(p99, 3)?,
        p999_ns: decimal(p999, 3)?,
        cpu_ns: cpu.parse().ok(),
        busy_percent: busy.parse().ok(),
        instructions: parse_instructions(instructions),
        calls_percent: decimal(calls, 2),
    })
}

fn parse_fact(cells: &[&str]) -> Option<Fact> {
    let [name, value, unit] = cells else { return None };
    Some(Fact::new(name, decimal(value, 3)?, unit))
}

/// `document` with the report in place of what stood between the markers.
///
/// # Errors
/// When the document lacks them.
pub fn record(document: &str, report: &Report) -> Result<String, TableError> {
    let old = recorded(document).ok_or(TableError::Markers)?;
    let start = old.as_ptr() as usize - document.as_ptr() as usize;
    let (before, after) = (&document[..start], &document[start + old.len()..]);
    Ok(format!("{before}{}{after}", render(report)))
}

/// What stands between the markers.
fn recorded(document: &str) -> Option<&str> {
    let (_, rest) = document.split_once(BEGIN)?;
    let (recorded, _) = rest.split_once(END)?;
    Some(recorded.strip_prefix('\n').unwrap_or(recorded))
}

/// The report beside an older one: each number as a ratio, `new/old`.
pub fn compare(new: &Report, old: &Report) -> String {
    let mut text = String::new();
    for row in &new.rows {
        let Some(before) = old.rows.iter().find(|before| before.key() == row.key()) else {
            continue;
        };
        let (device, workload) = row.key();
        let _ = write!(text, "{device:8} {workload:26} IOPS {}", ratio(row.iops, before.iops));
        let _ = write!(text, "  p50 {}", ratio(row.p50_ns, before.p50_ns));
        let _ = write!(text, "  p99 {}", ratio(row.p99_ns, before.p99_ns));
        if let Some((cpu, before)) = row.cpu_ns.zip(before.cpu_ns) {
            let _ = write!(text, "  CPU {}", ratio(cpu, before));
        }
        if let Some((new, old)) = row.instructions.zip(before.instructions).and_then(same_counter) {
            let _ = write!(text, "  instr {}", ratio(new, old));
        }
        text.push('\n');
    }
    for fact in &new.facts {
        let Some(before) = old.facts.iter().find(|before| before.name == fact.name) else {
            continue;
        };
        let change = ratio(fact.value_milli, before.value_milli);
        let _ = writeln!(text, "{:42} {change}", fact.name);
    }
    text
}

/// Two counts, when the same counter made them.
fn same_counter(counts: (Instructions, Instructions)) -> Option<(u64, u64)> {
    use Instructions::{Callgrind, CallgrindInMemory, Hardware};
    match counts {
        (Hardware(new), Hardware(old))
        | (Callgrind(new), Callgrind(old))
        | (CallgrindInMemory(new), CallgrindInMemory(old)) => Some((new, old)),
        _ => None,
    }
}

/// `new / old` with two digits after the point.
fn ratio(new: u64, old: u64) -> String {
    let percent = (u128::from(new) * 100 + u128::from(old) / 2).checked_div(u128::from(old));
    match percent {
        Some(percent) => format!("{}.{:02}x", percent / 100, percent % 100),
        None => UNKNOWN.to_owned(),
    }
}

fn tenths(number: u64) -> String {
    format!("{}.{}", number / 10, number % 10)
}

fn hundredths(number: u64) -> String {
    format!("{}.{:02}", number / 100, number % 100)
}

fn thousandths(number: u64) -> String {
    format!("{}.{:03}", number / 1000, number % 1000)
}

/// A decimal number with at most `digits` digits after the point, in units of the last of these.
fn decimal(text: &str, digits: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty()
        || fraction.len() > digits
        || !fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    format!("{whole}{fraction:0<digits$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let full = Row {
            device: "ram".into(),
            workload: "4k randread qd32".into(),
            iops: 558_123,
            mib_per_s: 2180,
            p50_ns: 52_300,
            p99_ns: 80_000,
            p999_ns: 4_000_900,
            cpu_ns: Some(1780),
            busy_percent: Some(99),
            instructions: Some(Instructions::Callgrind(2345)),
            calls_percent: Some(7),
        };
        let bare = Row { workload: "4k randread qd1".into(), ..Row::default() };
        Report {
            context: Context {
                machine: "a machine, 2 CPUs".into(),
                kernel: "6.18".into(),
                load: "0.15".into(),
                date: "2026-11-21".into(),
                commit: "abc1234".into(),
                command: "holdfast-bench".into(),
                uncounted: None,
            },
            rows: vec![full, Row { device: "null".into(), ..bare }],
            facts: vec![Fact::new("recovery of a 256 MiB log", 1234, "s")],
        }
    }

    const GOLDEN: &str = "\
Machine: a machine, 2 CPUs  \nKernel: 6.18  \nLoad: 0.15  \nDate: 2026-11-21  \nCommit: abc1234  \n\
Command: `holdfast-bench`

| device | workload | IOPS | MiB/s | p50 us | p99 us | p99.9 us | CPU ns/IO | busy % \
| instr/IO | calls/IO |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
| ram | 4k randread qd32 | 558123 | 2180 | 52.3 | 80.0 | 4000.9 | 1780 | 99 | 2345 cg | 0.07 |
| null | 4k randread qd1 | 0 | 0 | 0.0 | 0.0 | 0.0 | - | - | - | - |

| measure | value | unit |
|---|--:|---|
| recovery of a 256 MiB log | 1.234 | s |
";

    #[test]
    fn rendered_table_is_the_golden_one_and_reads_back() {
        assert_eq!(render(&report()), GOLDEN);
        let read = parse(GOLDEN);
        assert_eq!((read.rows, read.facts), (report().rows, report().facts));
    }

    #[test]
    fn recording_replaces_only_what_is_between_the_markers() {
        let document = format!("# Title\n\n{BEGIN}\nold | old\n{END}\n\nThe rest.\n");
        let once = record(&document, &report()).unwrap();
        assert_eq!(once, format!("# Title\n\n{BEGIN}\n{GOLDEN}{END}\n\nThe rest.\n"));
        assert_eq!(record(&once, &report()).unwrap(), once);
        assert_eq!(parse(&once).rows, report().rows);
        assert_eq!(record("no markers", &report()), Err(TableError::Markers));
    }

    #[test]
    fn comparison_shows_ratios_of_what_both_have() {
        let mut new = report();
        new.rows[0].iops *= 2;
        new.rows[0].cpu_ns = Some(890);
        new.rows.push(Row { device: "store".into(), ..Row::default() });
        let text = compare(&new, &report());
        let first = "ram      4k randread qd32           \
             IOPS 2.00x  p50 1.00x  p99 1.00x  CPU 0.50x  instr 1.00x";
        assert_eq!(text.lines().next(), Some(first));
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.ends_with("recovery of a 256 MiB log                  1.00x\n"));
        assert_eq!(compare(&new, &Report::default()), "");
    }

    #[test]
    fn counts_of_different_counters_are_not_compared() {
        let mut new = report();
        new.rows[0].instructions = Some(Instructions::Hardware(2345));
        assert!(!compare(&new, &report()).contains("instr"));
        for text in ["2345", "2345 cg", "2345 cg-ram"] {
            let read = parse_instructions(text).map(render_instructions);
            assert_eq!(read.as_deref(), Some(text));
        }
        assert_eq!(parse_instructions("2345 guessed"), None);
    }

    #[test]
    fn table_says_why_instructions_are_missing() {
        let mut report = report();
        report.context.uncounted = Some("valgrind is not installed".into());
        let text = render(&report);
        assert!(text.contains("Instructions were not counted: valgrind is not installed.\n"));
    }

    #[test]
    fn decimals_of_a_hand_edited_table_are_read_or_refused() {
        assert_eq!(decimal("52.3", 3), Some(52_300));
        assert_eq!(decimal("52", 3), Some(52_000));
        for text in ["", "-", "1.2345", "1.x", "x"] {
            assert_eq!(decimal(text, 3), None, "{text}");
        }
    }
}
