//! Sets of namespace identifiers.

use crate::limits::NAMESPACES_MAX;

const WORDS: usize = NAMESPACES_MAX as usize / 64 + 1;

/// A set of NSIDs, 0 to [`NAMESPACES_MAX`], without allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NsidSet([u64; WORDS]);

impl NsidSet {
    /// Adds one.
    ///
    /// # Panics
    /// When it is beyond [`NAMESPACES_MAX`].
    pub(crate) fn insert(&mut self, nsid: u32) {
        self.0[nsid as usize / 64] |= 1 << (nsid % 64);
    }

    /// Whether it is in. Those beyond the limit never are.
    pub(crate) fn contains(&self, nsid: u32) -> bool {
        self.0.get(nsid as usize / 64).is_some_and(|word| word & 1 << (nsid % 64) != 0)
    }

    /// Adds all of `other`.
    pub(crate) fn extend(&mut self, other: &NsidSet) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == NsidSet::default()
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..=NAMESPACES_MAX).filter(|&nsid| self.contains(nsid))
    }
}

impl FromIterator<u32> for NsidSet {
    fn from_iter<I: IntoIterator<Item = u32>>(nsids: I) -> NsidSet {
        let mut set = NsidSet::default();
        nsids.into_iter().for_each(|nsid| set.insert(nsid));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_every_identifier_up_to_the_limit() {
        let mut set: NsidSet = [1, 63, 64, NAMESPACES_MAX].into_iter().collect();
        assert!(set.contains(64) && !set.contains(65) && !set.contains(u32::MAX));
        set.extend(&[2].into_iter().collect());
        assert_eq!(set.iter().collect::<Vec<_>>(), [1, 2, 63, 64, NAMESPACES_MAX]);
        assert!(NsidSet::default().is_empty() && !set.is_empty());
    }
}
