//! Spec citations: every `//= TITLE §SECTION` names a section that `docs/spec/*.toml` lists, and is
//! followed by the requirement it enforces.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::{assert_none, root, sources};

/// Sections by the title of their specification.
fn claimed() -> BTreeMap<String, BTreeSet<String>> {
    let mut claimed = BTreeMap::new();
    for entry in fs::read_dir(root().join("docs/spec")).expect("docs/spec") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("UTF-8");
        let table: toml::Table = text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let title = table["title"].as_str().expect("a title").to_owned();
        let sections = table["sections"].as_table().expect("a table of sections");
        claimed.insert(title, sections.keys().cloned().collect());
    }
    claimed
}

#[test]
fn citations_resolve_and_state_the_requirement() {
    let claimed = claimed();
    let mut complaints = Vec::new();
    let mut cited: BTreeMap<(String, String), [usize; 2]> = BTreeMap::new();
    for source in sources().iter().filter(|source| !source.path.contains("tests/tidy/")) {
        let lines: Vec<&str> = source.text.lines().map(str::trim_start).collect();
        for (index, line) in lines.iter().enumerate() {
            let Some(citation) = line.strip_prefix("//= ") else { continue };
            let place = format!("{}:{}", source.path, index + 1);
            let Some((title, section)) = citation.split_once(" \u{a7}") else {
                complaints.push(format!("{place}: a citation is `//= TITLE \u{a7}SECTION`"));
                continue;
            };
            let (section, kind) = section.split_once(' ').unwrap_or((section, ""));
            if !claimed.get(title).is_some_and(|sections| sections.contains(section)) {
                complaints.push(format!("{place}: docs/spec lists no {title} \u{a7}{section}"));
            }
            let states = lines
                .get(index + 1)
                .is_some_and(|next| next.starts_with("//# ") || next.starts_with("//= "));
            if !states {
                complaints.push(format!("{place}: the next line must be `//# requirement`"));
            }
            let key = (title.to_owned(), section.to_owned());
            cited.entry(key).or_default()[usize::from(kind.contains("type=test"))] += 1;
        }
    }
    for ((title, section), [enforced, tested]) in &cited {
        println!("{title} \u{a7}{section}: enforced {enforced}, tested {tested}");
    }
    for (title, sections) in &claimed {
        let seen = sections
            .iter()
            .filter(|section| cited.contains_key(&(title.clone(), (*section).clone())));
        println!("{title}: {} of {} listed sections cited", seen.count(), sections.len());
    }
    assert_none("citations", complaints);
}
