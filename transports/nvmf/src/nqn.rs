//! NVMe qualified names and host identifiers, validated and without allocation.

use std::fmt;

use nvme_spec::{NQN_FIELD_LEN, NQN_LEN_MAX};

/// An NVMe qualified name: 1 to 223 bytes of UTF-8 without NUL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nqn {
    len: u8,
    bytes: [u8; NQN_LEN_MAX],
}

/// Why a string is not an NQN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NqnError {
    /// It is empty or longer than 223 bytes.
    Length {
        /// Its length in bytes.
        len: usize,
    },
    /// It does not start with `nqn.`.
    Prefix,
    /// It holds a control character or a space.
    Character,
}

impl fmt::Display for NqnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NqnError::Length { len } => write!(f, "an NQN has 1 to 223 bytes, this has {len}"),
            NqnError::Prefix => f.write_str("an NQN starts with \"nqn.\""),
            NqnError::Character => f.write_str("an NQN has no spaces or control characters"),
        }
    }
}

impl std::error::Error for NqnError {}

impl Nqn {
    /// The NQN that an operator wrote.
    ///
    /// # Errors
    /// When it is not one: see [`NqnError`].
    pub fn new(text: &str) -> Result<Nqn, NqnError> {
        if text.is_empty() || text.len() > NQN_LEN_MAX {
            return Err(NqnError::Length { len: text.len() });
        }
        if !text.starts_with("nqn.") {
            return Err(NqnError::Prefix);
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(NqnError::Character);
        }
        Ok(Nqn::copy(text.as_bytes()))
    }

    /// The NQN in a field of the wire: NUL-terminated, at most 223 bytes, UTF-8.
    //= NVMe-Base 2.1 §4.7
    //# NQNs are NUL-terminated UTF-8 strings
    pub(crate) fn from_field(field: &[u8; NQN_FIELD_LEN]) -> Option<Nqn> {
        let len = field.iter().position(|&b| b == 0)?;
        let text = field.get(..len)?;
        let fits = (1..=NQN_LEN_MAX).contains(&len) && std::str::from_utf8(text).is_ok();
        fits.then(|| Nqn::copy(text))
    }

    fn copy(text: &[u8]) -> Nqn {
        let mut bytes = [0; NQN_LEN_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Nqn { len: u8::try_from(text.len()).expect("at most 223"), bytes }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        let text = &self.bytes[..usize::from(self.len)];
        std::str::from_utf8(text).expect("checked when it was made")
    }

    /// The field of the wire: the name, then NULs.
    pub(crate) fn to_field(self) -> [u8; NQN_FIELD_LEN] {
        let mut field = [0; NQN_FIELD_LEN];
        field[..NQN_LEN_MAX].copy_from_slice(&self.bytes);
        field
    }
}

impl fmt::Debug for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// HOSTID: names a host across all its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostId(pub [u8; 16]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_their_edges() {
        let longest = format!("nqn.{}", "a".repeat(219));
        assert_eq!(Nqn::new(&longest).unwrap().as_str(), longest);
        assert_eq!(Nqn::new(&format!("{longest}a")), Err(NqnError::Length { len: 224 }));
        assert_eq!(Nqn::new(""), Err(NqnError::Length { len: 0 }));
        assert_eq!(Nqn::new("iqn.2026-01.x:y"), Err(NqnError::Prefix));
        assert_eq!(Nqn::new("nqn.a b"), Err(NqnError::Character));
    }

    #[test]
    fn field_without_terminator_is_refused() {
        let nqn = Nqn::new("nqn.2026-11.io.example:vol").unwrap();
        assert_eq!(Nqn::from_field(&nqn.to_field()), Some(nqn));
        assert_eq!(Nqn::from_field(&[b'a'; NQN_FIELD_LEN]), None);
        assert_eq!(Nqn::from_field(&[0; NQN_FIELD_LEN]), None);
        let mut long = [0; NQN_FIELD_LEN];
        long[..224].fill(b'a');
        assert_eq!(Nqn::from_field(&long), None);
        let mut broken = [0; NQN_FIELD_LEN];
        broken[0] = 0xff;
        assert_eq!(Nqn::from_field(&broken), None);
    }
}
