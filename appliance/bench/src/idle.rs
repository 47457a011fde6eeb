//! What a target costs that has nothing to do.

use std::rc::Rc;
use std::thread;
use std::time::Duration;

use bdev::Pool;
use load::Clock;
use node::StoreSpec;
use reactor::Idle;

use crate::error::BenchError;
use crate::network::{Site, connect, plan};
use crate::options::Options;
use crate::report::Fact;
use crate::target::LocalTarget;

/// Connections of the measure that is not about none: one of them is the admin queue.
const CONNECTIONS: u32 = 32;

/// How long a target is left alone before it is looked at.
const SETTLE: Duration = Duration::from_millis(300);

/// CPU time of an adaptive reactor without I/O, in percent of a core: without connections, and with
/// `CONNECTIONS` that are silent.
///
/// # Errors
/// A target that cannot be started or connected to.
pub fn idle_cpu(options: &Options) -> Result<Vec<Fact>, BenchError> {
    let store = StoreSpec::Ram { bytes: options.size };
    let target = LocalTarget::start(crate::target::TargetPlan {
        idle: Idle::Adaptive,
        ..plan(options, store)
    })?;
    let alone = share(&target, options.time)?;
    let pool: Rc<Pool> = Rc::new(crate::direct::pool(CONNECTIONS, 1, 64 << 10)?);
    let client = connect(&Site::local("idle", &target), &pool, CONNECTIONS - 1, false)?;
    let connected = share(&target, options.time)?;
    drop(client);
    target.shutdown()?;
    let name = format!("idle CPU, {CONNECTIONS} connections");
    Ok(vec![Fact::new("idle CPU, no connection", alone, "%"), Fact::new(&name, connected, "%")])
}

/// The share of a core that the target's thread takes, in thousandths of a percent.
fn share(target: &LocalTarget, time: Duration) -> Result<u64, BenchError> {
    let unknown = || BenchError::Usage("the CPU time of threads needs /proc".to_owned());
    let thread = target.thread().ok_or_else(unknown)?;
    rest(SETTLE);
    let clock = Clock::start();
    let before = thread.cpu_time().ok_or_else(unknown)?;
    rest(time);
    let spent = thread.cpu_time().ok_or_else(unknown)?.saturating_sub(before);
    let elapsed = u128::from(clock.now().as_ns()).max(1);
    Ok(u64::try_from(spent.as_nanos() * 100_000 / elapsed).unwrap_or(u64::MAX))
}

/// Leaves the CPU alone for `time`.
fn rest(time: Duration) {
    let clock = Clock::start();
    loop {
        let left = time.saturating_sub(Duration::from_nanos(clock.now().as_ns()));
        if left.is_zero() {
            return;
        }
        // A park may end early.
        thread::park_timeout(left);
    }
}
