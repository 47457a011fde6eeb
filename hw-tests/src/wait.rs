//! The one way this crate waits for what it cannot be told of: files, processes, listings.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(10);

/// Looks until there is something, and fails when the time is over. Looks once more after that, so
/// that a machine that stood still does not count as a peer that did.
pub(crate) fn until<T>(
    timeout: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let late = Instant::now() > deadline;
        if let Some(found) = look()? {
            return Ok(found);
        }
        if late {
            bail!("not within {} s: {what}", timeout.as_secs());
        }
        thread::park_timeout(PERIOD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_even_when_the_time_is_over() {
        assert_eq!(until(Duration::ZERO, "x", || Ok(Some(1))).unwrap(), 1);
        let mut looks = 0;
        let second = until(Duration::from_secs(60), "x", || {
            looks += 1;
            Ok((looks == 2).then_some(looks))
        });
        assert_eq!(second.unwrap(), 2);
    }

    #[test]
    fn what_never_comes_is_named() {
        let error = until(Duration::ZERO, "the moon", || Ok(None::<()>)).unwrap_err();
        assert!(error.to_string().contains("the moon"));
    }
}
