//! Sizes and times as people type them: `4k`, `128k`, `1g`; `5s`, `500ms`, `2m`.

use std::time::Duration;

/// Bytes: a whole number with an optional `k`, `m`, `g` or `t` (powers of 1024).
///
/// # Errors
/// What is wrong with the text.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let shift = match unit.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("unknown unit {unit:?}: use k, m, g or t")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "does not fit 64 bits".to_owned())
}

/// A time: a whole number with an optional `ms`, `s` or `m`; seconds when there is none.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let ms = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        _ => return Err(format!("unknown unit {unit:?}: use ms, s or m")),
    };
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

/// `bytes` with the largest unit that divides them.
pub fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

fn split(text: &str) -> Result<(u64, &str), String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number = number.parse().map_err(|_| format!("{text:?} does not start with a number"))?;
    Ok((number, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_with_their_units() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("4k"), Ok(4096));
        assert_eq!(parse_size("128 KiB"), Ok(131_072));
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_mins(2)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "k", "-1", "4x", "99999999999999999999", "99999999t"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for text in ["", "s", "5h"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_the_largest_unit_that_fits() {
        assert_eq!(show_size(4096), "4 KiB");
        assert_eq!(show_size(1 << 20), "1 MiB");
        assert_eq!(show_size(1000), "1000 B");
        assert_eq!(show_size(0), "0 B");
    }
}
