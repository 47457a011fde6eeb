//! The house rules as tests: crate edges, where `unsafe` and `tokio` may live, lengths, forbidden
//! calls and names, and spec citations that resolve. Each failure says where, what and why.

mod citations;
mod edges;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

/// A source file of the house: its path from the root, and its text.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// True when the file lies in a crate of this list of folders.
    pub(crate) fn is_in(&self, folders: &[&str]) -> bool {
        folders
            .iter()
            .any(|folder| self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    }

    /// The lines with their numbers, from one.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

pub(crate) fn root() -> PathBuf {
    let daemon = Path::new(env!("CARGO_MANIFEST_DIR"));
    daemon.ancestors().nth(2).expect("the daemon is two folders below the root").to_path_buf()
}

/// Every Rust file below the fixed top-level folders.
pub(crate) fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), &mut |path| {
            if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(read(path));
            }
        });
    }
    assert!(sources.len() > 50, "the walk found only {} files", sources.len());
    sources
}

pub(crate) fn read(path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("source files are UTF-8");
    let path = path.strip_prefix(root()).expect("below the root").display().to_string();
    Source { path, text }
}

fn collect(folder: &Path, found: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&path, found);
        } else if path.is_file() {
            found(&path);
        }
    }
}

/// Fails with every complaint at once.
pub(crate) fn assert_none(rule: &str, complaints: Vec<String>) {
    let count = complaints.len();
    assert!(complaints.is_empty(), "{rule} ({count}):\n  {}", complaints.join("\n  "));
}

/// The top-level folders that hold code.
const FOLDERS: [&str; 6] = ["appliance", "bdev", "hw-tests", "mgmt", "replication", "transports"];
