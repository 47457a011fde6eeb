//! Which cores there are, and staying on one.

use std::io;

use crate::system;

/// The cores that this thread may run on, in order.
///
/// # Errors
/// When the system does not say.
pub fn cores_allowed() -> io::Result<Vec<usize>> {
    system::affinity()
}

/// Keeps the calling thread on `core`.
///
/// # Errors
/// When there is no such core, or it is not allowed.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    system::set_affinity(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_thread_may_run_on_its_core_only() {
        let cores = cores_allowed().unwrap();
        let &last = cores.last().unwrap();
        let seen = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    pin_to_core(last).unwrap();
                    cores_allowed().unwrap()
                })
                .join()
                .unwrap()
        });
        assert_eq!(seen, [last]);
        assert_eq!(cores_allowed().unwrap(), cores, "only the calling thread is pinned");
        assert!(pin_to_core(100_000).is_err());
    }
}
