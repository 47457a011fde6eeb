//! Rules about the text itself: lengths, characters, forbidden calls and names, unused files.

use std::collections::BTreeSet;

use crate::{Source, assert_none, sources};

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// What must not be written, where it may be all the same, and why not. (`get` is NVMe's own verb in
/// Get Features and Property Get.)
const FORBIDDEN: [(&str, &[&str], &str); 15] = [
    ("todo!(", &[], "finish it or leave it out"),
    ("unimplemented!(", &[], "finish it or leave it out"),
    ("dbg!(", &[], "a leftover"),
    ("FIXME", &[], "fix it or write an issue"),
    ("XXX", &[], "fix it or write an issue"),
    ("#[ignore", &[], "a test runs or does not exist"),
    ("#[should_panic", &[], "assert on the error instead"),
    ("thread::sleep", &["hw-tests/src/wait.rs"], "wait for a condition"),
    ("time::sleep(", &["appliance/daemon/src", "mgmt"], "wait for a condition"),
    ("Instant::now()", &["appliance", "hw-tests", "mgmt", "transports/net-uring"], "turn(now)"),
    ("SystemTime::now()", &["appliance", "hw-tests", "mgmt"], "turn(now)"),
    ("println!(", &["appliance", "hw-tests", "mgmt", "bdev/core/src/conformance.rs"], "a library"),
    ("fn get_", &["transports/nvmf"], "name the thing, not the getting"),
    (concat!("/", "work/"), &[], "a path of one machine"),
    ("rand::", &[], "use bdev::Rng with a seed"),
];

/// Name endings that say nothing about what a type is.
const VAGUE_TYPES: [&str; 4] = ["Manager", "Handler", "Helper", "Util"];

/// File names that say nothing about what is inside.
const VAGUE_FILES: [&str; 5] = ["util.rs", "utils.rs", "common.rs", "helpers.rs", "misc.rs"];

/// The rules below name what they forbid.
fn judged() -> impl Iterator<Item = Source> {
    sources().into_iter().filter(|source| !source.path.contains("tests/tidy/"))
}

#[test]
fn files_functions_and_lines_are_short() {
    let mut complaints = Vec::new();
    for source in judged() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            complaints.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path));
        }
        for (number, line) in source.lines() {
            let columns = line.chars().count();
            // A table's row cannot be broken.
            if columns > COLUMNS_MAX && !line.starts_with("//! |") {
                complaints.push(format!("{}:{number}: {columns} columns", source.path));
            }
        }
        for (number, length) in long_functions(&source) {
            complaints.push(format!("{}:{number}: a function of {length} lines", source.path));
        }
    }
    assert_none("lengths", complaints);
}

/// Functions above the limit as (line, length). Formatted code closes a body at its own indent.
fn long_functions(source: &Source) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let mut words = code.split_whitespace().take_while(|word| !word.starts_with("//"));
        let is_function = words.any(|word| word == "fn") && !code.starts_with('*');
        if !is_function || !code.split('(').next().is_some_and(|head| head.contains("fn ")) {
            continue;
        }
        let indent = line.len() - code.len();
        let close = format!("{}}}", " ".repeat(indent));
        let end = lines[start..].iter().position(|line| {
            let code = line.trim_start();
            // A declaration in a trait has no body.
            let declared = (code.starts_with(')') || code.starts_with("->")) && code.ends_with(';');
            let ends = line.ends_with("; }") || declared;
            *line == close || (line.len() - code.len() == indent && ends)
        });
        let one_line = code.ends_with('}') || code.ends_with(';');
        if let (Some(length), false) = (end, one_line)
            && length + 1 > FUNCTION_LINES_MAX
        {
            found.push((start + 1, length + 1));
        }
    }
    found
}

#[test]
fn source_is_plain_ascii() {
    let mut complaints = Vec::new();
    for source in judged() {
        for (number, line) in source.lines() {
            // The section sign is how specifications are cited.
            if let Some(odd) = line.chars().find(|&c| !c.is_ascii() && c != '\u{a7}') {
                complaints.push(format!("{}:{number}: {odd:?}", source.path));
            }
            if line.contains('\t') || line.ends_with(' ') {
                complaints.push(format!("{}:{number}: tab or trailing space", source.path));
            }
        }
    }
    assert_none("characters", complaints);
}

#[test]
fn forbidden_calls_are_absent() {
    let mut complaints = Vec::new();
    for source in judged() {
        for (number, line) in source.lines() {
            for (pattern, places, why) in FORBIDDEN {
                let prints =
                    matches!(pattern, "println!(" | "Instant::now()") && is_program(&source.path);
                let excused = prints || places.iter().any(|place| source.path.starts_with(place));
                let line = line.replace("fn get_mut", "");
                if line.contains(pattern) && !excused && !line.trim_start().starts_with("//") {
                    complaints.push(format!("{}:{number}: {pattern} ({why})", source.path));
                }
            }
            if line.trim_start().starts_with("pub use ") && line.ends_with("::*;") {
                complaints.push(format!("{}:{number}: a glob re-export", source.path));
            }
        }
    }
    assert_none("forbidden", complaints);
}

/// Tests and examples talk to whoever runs them.
fn is_program(path: &str) -> bool {
    path.contains("/tests/") || path.contains("/examples/")
}

#[test]
fn names_say_what_things_are() {
    let mut complaints = Vec::new();
    for source in judged() {
        let file = source.path.rsplit('/').next().unwrap_or_default();
        if VAGUE_FILES.contains(&file) {
            complaints.push(format!("{}: name the idea", source.path));
        }
        for (number, line) in source.lines() {
            let mut words = line
                .split_whitespace()
                .skip_while(|word| !matches!(*word, "struct" | "enum" | "trait" | "type"));
            let name = words.nth(1).unwrap_or_default();
            let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            if VAGUE_TYPES.iter().any(|vague| name.ends_with(vague)) {
                complaints.push(format!("{}:{number}: {name}", source.path));
            }
        }
    }
    assert_none("names", complaints);
}

#[test]
fn every_file_belongs_to_a_module() {
    let sources = sources();
    let declared: BTreeSet<String> = sources
        .iter()
        .flat_map(|source| {
            source.text.lines().filter_map(|line| {
                let (_, name) = line.trim().strip_suffix(';')?.rsplit_once("mod ")?;
                Some(name.to_owned())
            })
        })
        .collect();
    let mut complaints = Vec::new();
    for source in &sources {
        let mut parts = source.path.rsplit('/');
        let stem = parts.next().and_then(|file| file.strip_suffix(".rs")).unwrap_or_default();
        let folder = parts.next().unwrap_or_default();
        let is_root = matches!(stem, "lib" | "main" | "build" | "mod")
            || matches!(folder, "bin" | "tests" | "examples" | "benches");
        if !is_root && !declared.contains(stem) {
            complaints.push(format!("{}: no module declares it", source.path));
        }
    }
    assert_none("dead files", complaints);
}
