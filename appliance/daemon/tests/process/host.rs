//! A host on NVMe/TCP, and what it writes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use bdev::{Completion, Data, Fifo, Lba, Pool, PoolConfig, Queue, Request, Rng, Status, Tag};
use load::{Client, ConnectError, Destination};
use net_uring::{UringNet, UringNetConfig};
use nvmf::Digests;
use reactor::Clock;

/// The host that `bench` says it is.
pub(crate) const HOST: &str =
    "nqn.2014-08.org.nvmexpress:uuid:68667462-656e-4368-8000-000000000001";
pub(crate) const BLOCK: usize = 4096;
pub(crate) const BLOCKS: u64 = 2048;
/// Blocks of one read.
const RUN: u64 = 32;

pub(crate) struct Host {
    pool: Rc<Pool>,
    queue: Box<dyn Queue>,
    requests: Fifo<Request>,
    completions: Fifo<Completion>,
    _client: Client,
}

impl Host {
    /// Connects to the volume `db`.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, ConnectError> {
        Self::connect_to(address, "db")
    }

    pub(crate) fn connect_to(address: SocketAddr, volume: &str) -> Result<Self, ConnectError> {
        let pool = Rc::new(Pool::new(&PoolConfig::for_bytes(64 << 20)).unwrap());
        let config = UringNetConfig { connections_max: 8, ..UringNetConfig::default() };
        let net = Box::new(UringNet::new(&config).unwrap());
        let subsystem = nvmf::Nqn::new(&format!("nqn.2026-11.dev.holdfast:test:{volume}")).unwrap();
        let digests = Digests { header: true, data: true };
        let destination = Destination { digests, ..Destination::new(address, subsystem) };
        let client = Client::connect(net, Rc::clone(&pool), &destination, &mut || Clock.now())?;
        let queue = client.queue(0);
        let (requests, completions) = (Fifo::new(1), Fifo::new(1));
        Ok(Self { pool, queue, requests, completions, _client: client })
    }

    /// Its buffers and its queue, for many requests at once.
    pub(crate) fn parts(&mut self) -> (&Pool, &mut dyn Queue) {
        (&self.pool, &mut *self.queue)
    }

    fn execute(&mut self, request: Request) -> Completion {
        assert!(self.requests.push(request).is_ok());
        loop {
            self.queue.submit(&mut self.requests);
            self.queue.kick();
            self.queue.poll(&mut self.completions);
            if let Some(completion) = self.completions.pop() {
                return completion;
            }
        }
    }

    pub(crate) fn write(&mut self, lba: u64, versions: &[u64]) {
        let len = versions.len() * BLOCK;
        let mut buffer = self.pool.take(len).unwrap();
        for (index, block) in buffer.bytes_mut()[..len].chunks_mut(BLOCK).enumerate() {
            block.copy_from_slice(&content(lba + index as u64, versions[index]));
        }
        let blocks = u32::try_from(versions.len()).unwrap();
        let request = Request::write(Tag(1), Lba(lba), blocks, buffer.freeze());
        assert_eq!(self.execute(request).status, Status::Ok, "write at {lba}");
    }

    /// All of the volume, in pieces: where each begins, and its bytes.
    pub(crate) fn read_all(&mut self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        let step = usize::try_from(RUN).unwrap();
        (0..BLOCKS).step_by(step).map(|lba| (lba, self.read(lba)))
    }

    fn read(&mut self, lba: u64) -> Vec<u8> {
        let len = usize::try_from(RUN).unwrap() * BLOCK;
        let buffer = self.pool.take(len).unwrap();
        let blocks = u32::try_from(RUN).unwrap();
        let completion = self.execute(Request::read(Tag(2), Lba(lba), blocks, buffer));
        assert_eq!(completion.status, Status::Ok, "read at {lba}");
        let Data::Into(buffer) = completion.data else { panic!("a read returns its buffer") };
        buffer.bytes()[..len].to_vec()
    }

    /// Reads one block; how that ended.
    pub(crate) fn try_read(&mut self, lba: u64) -> Status {
        let buffer = self.pool.take(BLOCK).unwrap();
        self.execute(Request::read(Tag(4), Lba(lba), 1, buffer)).status
    }

    /// Asks for all of the volume at once, takes the first answer, and listens no more.
    pub(crate) fn read_and_stop_listening(&mut self) -> u32 {
        let len = usize::try_from(RUN).unwrap() * BLOCK;
        let mut requests = Fifo::new(usize::try_from(BLOCKS / RUN).unwrap());
        for lba in (0..BLOCKS).step_by(usize::try_from(RUN).unwrap()) {
            let buffer = self.pool.take(len).unwrap();
            let blocks = u32::try_from(RUN).unwrap();
            let tag = Tag(u32::try_from(lba).unwrap());
            assert!(requests.push(Request::read(tag, Lba(lba), blocks, buffer)).is_ok());
        }
        while self.completions.is_empty() {
            self.queue.submit(&mut requests);
            self.queue.kick();
            self.queue.poll(&mut self.completions);
        }
        assert!(requests.is_empty(), "the queue takes them all");
        self.queue.in_flight()
    }

    pub(crate) fn verify(&mut self, written: &BTreeMap<u64, u64>) {
        for start in (0..BLOCKS).step_by(usize::try_from(RUN).unwrap()) {
            for (lba, found) in (start..).zip(self.read(start).chunks(BLOCK)) {
                match written.get(&lba) {
                    Some(&version) => {
                        assert!(found == content(lba, version), "block {lba}, version {version}");
                    }
                    None => assert!(found.iter().all(|&byte| byte == 0), "block {lba}"),
                }
            }
        }
    }
}

/// What a block holds in a version.
pub(crate) fn content(lba: u64, version: u64) -> Vec<u8> {
    let mut rng = Rng::new(lba << 20 ^ version);
    (0..BLOCK / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect()
}

/// The address that the node took.
pub(crate) fn address(dir: &Path) -> SocketAddr {
    let text = std::fs::read_to_string(dir.join("state/endpoints.json")).unwrap();
    let endpoints: serde_json::Value = serde_json::from_str(&text).unwrap();
    endpoints["nvme_tcp"][0].as_str().unwrap().parse().unwrap()
}
