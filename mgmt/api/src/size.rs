//! Sizes in bytes, in the units people write.

use std::fmt;
use std::str::FromStr;

use crate::{ApiError, BlockSize};

/// A number of bytes.
///
/// Written as `10GiB`, `512MiB` or a plain number of bytes. Units are binary only: `GB` means two
/// different things to two readers, so it is refused with the spelling that means one.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ByteLen(u64);

/// The units, largest first.
const UNITS: [(&str, u64); 5] =
    [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

const HINT: &str = "write a whole number with B, KiB, MiB, GiB, TiB or PiB, for example 10GiB";

impl ByteLen {
    /// A length of `bytes` bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The length in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Checks that the length is a whole number of blocks, and not zero.
    ///
    /// # Errors
    /// `InvalidArgument` on `field`, with the nearest sizes that would do.
    pub fn whole_blocks(self, field: &str, block: BlockSize) -> Result<Self, ApiError> {
        let unit = u64::from(block.bytes());
        if self.0 == 0 {
            return Err(ApiError::invalid(field, "the size is zero", HINT));
        }
        if self.0.is_multiple_of(unit) {
            return Ok(self);
        }
        let below = self.0 / unit * unit;
        let reason = format!("{} bytes is not a multiple of the block size {unit}", self.0);
        let hint = match below.checked_add(unit) {
            Some(above) if below > 0 => format!("use {below} or {above}"),
            Some(above) => format!("use {above} or more"),
            None => format!("use {below}"),
        };
        Err(ApiError::invalid(field, reason, hint))
    }
}

impl FromStr for ByteLen {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        let shown: String = text.chars().take(40).flat_map(char::escape_default).collect();
        if number.is_empty() {
            return Err(ApiError::invalid("size", format!("\"{shown}\" is not a size"), HINT));
        }
        let factor = match unit {
            "" | "B" => 1,
            _ => match UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, factor)) => *factor,
                None => return Err(refuse_unit(number, unit, &shown)),
            },
        };
        let bytes = number.parse::<u64>().ok().and_then(|value| value.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| {
            ApiError::invalid("size", format!("\"{shown}\" is more than 2^64 bytes"), HINT)
        })
    }
}

fn refuse_unit(number: &str, unit: &str, shown: &str) -> ApiError {
    let letter = unit.chars().next().map(|c| c.to_ascii_uppercase());
    let meant = UNITS.iter().find(|(name, _)| name.chars().next() == letter);
    let looks_like_unit = unit.len() <= 3 && unit.chars().skip(1).all(|c| "iIbB".contains(c));
    match meant {
        Some((name, _)) if looks_like_unit => ApiError::invalid(
            "size",
            format!("\"{shown}\" has an unknown unit"),
            format!("did you mean {number}{name}? units are binary and spelled in full"),
        ),
        _ => ApiError::invalid("size", format!("\"{shown}\" is not a size"), HINT),
    }
}

impl fmt::Display for ByteLen {
    /// The largest unit that divides the length exactly; parsing it gives the same length back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in UNITS {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return f.pad(&format!("{}{name}", self.0 / factor));
            }
        }
        f.pad(&format!("{}B", self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_binary_and_exact() {
        let cases = [
            ("0", 0),
            ("1", 1),
            ("4096B", 4096),
            ("512MiB", 512 << 20),
            ("10GiB", 10 << 30),
            ("10 GiB", 10 << 30),
            ("16TiB", 16 << 40),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse::<ByteLen>().unwrap().bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn a_refused_size_comes_with_the_spelling_that_works() {
        let hint = |text: &str| text.parse::<ByteLen>().unwrap_err().hint().to_owned();
        assert!(hint("10GB").contains("did you mean 10GiB"), "{}", hint("10GB"));
        assert!(hint("10g").contains("did you mean 10GiB"));
        assert!(hint("3mib").contains("did you mean 3MiB"));
        assert_eq!(hint("ten"), HINT);
        assert_eq!(hint("1.5GiB"), HINT);
        assert_eq!(hint("-1"), HINT);
        assert_eq!(hint("20000000000000PiB"), HINT);
    }

    #[test]
    fn whole_blocks_offers_the_neighbours() {
        let size = ByteLen::from_bytes(4097);
        let error = size.whole_blocks("size", BlockSize::B4096).unwrap_err();
        assert_eq!(error.hint(), "use 4096 or 8192");
        let error = ByteLen::from_bytes(u64::MAX).whole_blocks("size", BlockSize::B512);
        assert_eq!(error.unwrap_err().hint(), format!("use {}", u64::MAX / 512 * 512));
        assert!(ByteLen::from_bytes(0).whole_blocks("size", BlockSize::B512).is_err());
        assert!(ByteLen::from_bytes(512).whole_blocks("size", BlockSize::B512).is_ok());
    }

    proptest! {
        #[test]
        fn every_length_survives_printing_and_parsing(bytes in any::<u64>(), shift in 0u32..60) {
            let length = ByteLen::from_bytes(bytes >> shift << (shift / 2));
            prop_assert_eq!(length.to_string().parse::<ByteLen>().unwrap(), length);
        }

        #[test]
        fn any_text_is_a_size_or_an_ascii_refusal(text in ".{0,30}") {
            if let Err(error) = text.parse::<ByteLen>() {
                prop_assert!(error.to_string().is_ascii());
                prop_assert!(error.hint().is_ascii());
            }
        }
    }
}
