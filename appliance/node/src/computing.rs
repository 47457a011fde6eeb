//! What connections want to have computed: on its way to a thread that is no reactor, and back.

use std::net::{IpAddr, Ipv6Addr};

use bdev::ring::{Consumer, Producer};
use nvmf::Computation;

use crate::limits::{COMPUTATIONS_MAX, COMPUTATIONS_PER_PEER_MAX};
use crate::link::Wake;

/// One shard's computations.
pub(crate) struct Computing {
    wanted: Producer<Box<Computation>>,
    done: Consumer<Box<Computation>>,
    /// Wakes who computes.
    wake: Wake,
    /// Connections whose computation is out, and where their hosts are.
    out: Vec<(u32, IpAddr)>,
    /// Somebody was told to wait.
    pub(crate) waiting: bool,
}

impl Computing {
    pub(crate) fn new(
        wanted: Producer<Box<Computation>>,
        done: Consumer<Box<Computation>>,
        wake: Wake,
    ) -> Computing {
        let out = Vec::with_capacity(COMPUTATIONS_MAX);
        Computing { wanted, done, wake, out, waiting: false }
    }

    /// Whether there is room for a computation for this host.
    pub(crate) fn has_room(&mut self, peer: IpAddr) -> bool {
        let place = neighbourhood(peer);
        let same = self.out.iter().filter(|(_, other)| *other == place).count();
        let room = self.out.len() < COMPUTATIONS_MAX && same < COMPUTATIONS_PER_PEER_MAX;
        self.waiting |= !room;
        room
    }

    /// Sends one off, for which there is room.
    pub(crate) fn send(&mut self, computation: Box<Computation>, peer: IpAddr) {
        self.out.push((computation.connection(), neighbourhood(peer)));
        self.wanted.push(computation).expect("as many places as can be out");
        (self.wake)();
    }

    /// The next one that came back.
    pub(crate) fn take(&mut self) -> Option<Box<Computation>> {
        let computation = self.done.pop()?;
        let connection = computation.connection();
        let at = self.out.iter().position(|(out, _)| *out == connection);
        self.out.swap_remove(at.expect("it was sent off"));
        Some(computation)
    }
}

/// Addresses that count as one.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        // Whoever has one address of a /64 has all of them.
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bdev::ring::spsc;

    use super::*;

    #[test]
    fn addresses_of_one_network_share_their_part() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(neighbourhood(ip("2001:db8::1")), neighbourhood(ip("2001:db8::ffff:2")));
        assert_ne!(neighbourhood(ip("2001:db8::1")), neighbourhood(ip("2001:db8:0:1::1")));
        assert_ne!(neighbourhood(ip("192.0.2.1")), neighbourhood(ip("192.0.2.2")));
        assert_eq!(neighbourhood(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let (wanted, _to) = spsc(COMPUTATIONS_MAX);
        let (_from, done) = spsc(COMPUTATIONS_MAX);
        let mut computing = Computing::new(wanted, done, Arc::new(|| ()));
        let ip = |last: u8| IpAddr::from([192, 0, 2, last]);
        for index in 0..COMPUTATIONS_PER_PEER_MAX {
            assert!(computing.has_room(ip(1)));
            computing.out.push((u32::try_from(index).unwrap(), ip(1)));
        }
        assert!(!computing.has_room(ip(1)) && computing.waiting);
        assert!(computing.has_room(ip(2)));
        for index in COMPUTATIONS_PER_PEER_MAX..COMPUTATIONS_MAX {
            let index = u8::try_from(index).unwrap();
            computing.out.push((u32::from(index), ip(100 + index)));
        }
        assert!(!computing.has_room(ip(2)), "all places are taken");
    }
}
