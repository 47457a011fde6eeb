//! All cases, in the order they run: cheap ones first.

mod crash;
mod demo;
mod discovery;
mod filesystems;
mod io;
mod life;
mod namespaces;
mod paths;
mod rot;

use crate::case::Case;

/// Every case there is.
pub(crate) fn all() -> Vec<Case> {
    [
        discovery::cases(),
        io::cases(),
        filesystems::cases(),
        life::cases(),
        namespaces::cases(),
        paths::cases(),
        demo::cases(),
        rot::cases(),
        crash::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_have_a_topic() {
        let cases = all();
        let names: HashSet<_> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len());
        for name in names {
            let (topic, claim) = name.split_once('/').unwrap();
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(topic.chars().chain(claim.chars()).all(word), "{name}");
        }
    }
}
