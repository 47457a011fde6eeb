//! The keys of hosts, and the thread that computes with them.
//!
//! Reactors hand out what takes milliseconds; one thread does it, for all of them in turn. A flood
//! of hosts that want to authenticate keeps it busy half of the time at most: what is left of its
//! core belongs to operators (and to a reactor, where cores are scarce).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use api::{ApiError, DhchapGroup, DhchapHash, DhchapKey, HostSet};
use node::NodeHandle;
use nvmf::{Authenticator, Group, Hash, HostKeys, Secret};

use super::Shared;
use super::convert::nvmf_nqn;

/// Where the thread that computes will be known.
#[derive(Clone, Default)]
pub(super) struct Seat(Arc<OnceLock<Thread>>);

impl Seat {
    /// What wakes whoever sits there.
    pub(super) fn wake(&self) -> Arc<dyn Fn() + Send + Sync> {
        let seat = Arc::clone(&self.0);
        Arc::new(move || seat.get().into_iter().for_each(Thread::unpark))
    }
}

/// The thread that computes.
pub(super) struct Computer {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl Computer {
    pub(super) fn start(seat: &Seat, handle: &NodeHandle) -> io::Result<Computer> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, handle) = (Arc::clone(&stop), handle.clone());
        let thread = thread::Builder::new().name("authentication".to_owned());
        let thread = thread.spawn(move || compute(&handle, &stopped))?;
        // What was wanted before is found by the thread itself when it starts.
        let _ = seat.0.set(thread.thread().clone());
        thread.thread().unpark();
        Ok(Computer { thread, stop })
    }

    /// Ends it. What is still wanted is not computed any more.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the thread for authentications has panicked");
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the thread of authentications takes a part of a core only"
)]
fn compute(handle: &NodeHandle, stop: &AtomicBool) {
    let random = |bytes: &mut [u8]| getrandom::fill(bytes).expect("the kernel has randomness");
    let mut authenticator = Authenticator::new(random);
    while !stop.load(Ordering::Acquire) {
        let mut found = false;
        for shard in 0..handle.shards() {
            let Some(mut computation) = handle.take_computation(shard) else { continue };
            found = true;
            let begun = Instant::now();
            authenticator.compute(&mut computation);
            handle.computed(shard, computation);
            rest(begun.elapsed(), stop);
        }
        if !found {
            // A wake-up between the look and this is not lost: it makes this return at once.
            thread::park();
        }
    }
}

/// Waits as long as the work took.
#[expect(
    clippy::disallowed_methods,
    reason = "the thread of authentications takes a part of a core only"
)]
fn rest(work: Duration, stop: &AtomicBool) {
    let begun = Instant::now();
    while let Some(left) = work.checked_sub(begun.elapsed())
        && !left.is_zero()
        && !stop.load(Ordering::Acquire)
    {
        thread::park_timeout(left);
    }
}

impl Shared {
    /// Replaces the keys of all hosts.
    pub(super) fn replace_hosts(&self, hosts: Vec<HostSet>) -> Result<(), ApiError> {
        let mut book = self.book();
        let before = std::mem::replace(&mut book.hosts, hosts);
        self.publish(&book).inspect_err(|_| book.hosts = before)
    }
}

/// The keys of a host, as the target has them.
pub(super) fn host_keys(host: &HostSet) -> Result<HostKeys, ApiError> {
    let secret = |key: &DhchapKey| {
        let secret = Secret::new(key.hash().map(hash), key.secret());
        secret.ok_or_else(|| ApiError::internal("a key of a length that is none"))
    };
    Ok(HostKeys {
        host: nvmf_nqn(host.nqn())?,
        key: secret(host.key())?,
        controller_key: host.controller_key().map(secret).transpose()?,
        hash: host.hash().map(hash),
        group: host.group().map(group),
    })
}

fn hash(hash: DhchapHash) -> Hash {
    match hash {
        DhchapHash::Sha256 => Hash::Sha256,
        DhchapHash::Sha384 => Hash::Sha384,
        DhchapHash::Sha512 => Hash::Sha512,
    }
}

fn group(group: DhchapGroup) -> Group {
    match group {
        DhchapGroup::Null => Group::Null,
        DhchapGroup::Ffdhe2048 => Group::Ffdhe2048,
        DhchapGroup::Ffdhe3072 => Group::Ffdhe3072,
        DhchapGroup::Ffdhe4096 => Group::Ffdhe4096,
        DhchapGroup::Ffdhe6144 => Group::Ffdhe6144,
        DhchapGroup::Ffdhe8192 => Group::Ffdhe8192,
    }
}
