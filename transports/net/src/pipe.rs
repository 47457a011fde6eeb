//! In-memory streams with delays, fragments and resets, from a seed.
//!
//! [`Pipes`] is a network in one thread with a virtual clock; each [`PipeNet`] is the sockets of
//! one shard or one simulated host at an address of its own. The same seed and the same calls give
//! the same bytes at the same moments.

mod lane;
mod net;
mod world;

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bdev::Instant;

pub use net::PipeNet;
use world::World;

/// How the pipes behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipeConfig {
    /// Draws delays, fragments and resets.
    pub seed: u64,
    /// Bytes in flight in one direction of a pipe before a send has to wait.
    pub window_bytes: usize,
    /// Largest run of bytes that travels together.
    pub fragment_max: usize,
    /// Shortest time a fragment travels.
    pub delay_min: Duration,
    /// Longest time a fragment travels. Fragments of one direction stay in order.
    pub delay_max: Duration,
    /// How many of a million kicked sends reset their connection half way.
    pub resets_per_million: u32,
    /// Connections that wait for a listener; more are refused.
    pub backlog_max: usize,
}

impl Default for PipeConfig {
    /// A perfect network: no delay, no fragments, no resets.
    fn default() -> PipeConfig {
        PipeConfig {
            seed: 0,
            window_bytes: 256 << 10,
            fragment_max: usize::MAX,
            delay_min: Duration::ZERO,
            delay_max: Duration::ZERO,
            resets_per_million: 0,
            backlog_max: 128,
        }
    }
}

impl PipeConfig {
    /// A nasty network: tiny windows, random fragments and delays. Resets are left to the test.
    pub fn nasty(seed: u64) -> PipeConfig {
        PipeConfig {
            seed,
            window_bytes: 16 << 10,
            fragment_max: 3000,
            delay_min: Duration::from_micros(5),
            delay_max: Duration::from_micros(300),
            ..PipeConfig::default()
        }
    }
}

/// A network in memory, shared by the [`PipeNet`]s on it. Clones are the same network.
#[derive(Clone, Debug)]
pub struct Pipes {
    world: Rc<RefCell<World>>,
}

impl Pipes {
    /// A network at the start of its clock.
    pub fn new(config: PipeConfig) -> Pipes {
        Pipes { world: Rc::new(RefCell::new(World::new(config))) }
    }

    /// The network's time.
    pub fn now(&self) -> Instant {
        self.world.borrow().now
    }

    /// The next moment at which something arrives, if something is on its way.
    pub fn next_moment(&self) -> Option<Instant> {
        self.world.borrow().next_moment()
    }

    /// Moves the clock to `now`; never back.
    pub fn advance_to(&self, now: Instant) {
        let mut world = self.world.borrow_mut();
        world.now = world.now.max(now);
    }

    /// Moves the clock to the next moment at which something arrives; false when there is none.
    pub fn advance(&self) -> bool {
        let next = self.next_moment();
        if let Some(now) = next {
            self.advance_to(now);
        }
        next.is_some()
    }

    /// Resets every connection of `host`, both ways; what was in flight is lost.
    pub fn reset_host(&self, host: IpAddr) {
        self.world.borrow_mut().reset_host(host);
    }

    /// Cuts the cable of `host`: nothing arrives at it or comes from it until it is mended. Nothing
    /// is lost.
    pub fn cut_host(&self, host: IpAddr) {
        self.world.borrow_mut().cut_host(host);
    }

    /// Mends the cable of `host`; what was in flight arrives.
    pub fn mend_host(&self, host: IpAddr) {
        self.world.borrow_mut().mend_host(host);
    }

    /// How many connections there are, in the backlog of a listener or further.
    pub fn connections(&self) -> usize {
        self.world.borrow().open_len()
    }
}

/// One end of a pipe that was accepted and not yet adopted.
#[derive(Debug)]
pub struct PipeEnd {
    pipe: usize,
    /// Lets the pipes see that the end was dropped instead of adopted.
    _token: Arc<()>,
}
