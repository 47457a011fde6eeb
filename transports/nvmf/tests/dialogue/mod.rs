//! Plays dialogue scripts against a target, byte by byte on the host's side.

mod offer;
mod owner;

use std::collections::BTreeMap;
use std::sync::Arc;

use bdev::{BufMut, Completion, Data, Fifo, Instant, Op, Pool, PoolConfig, Request, Status};
use net::Batch;
use nvme_spec::{
    AuthenticationSqe, CommonHeader, ConnectData, ConnectSqe, IcReq, PSDT_SGL, PduType,
    PropertyGetSqe, PropertySetSqe, Sgl, Sqe, U16, U32, U64, opcode,
};
use nvmf::{Addresses, Authenticator, Config, Connection, Cx, Health, NamespaceHandle, Target};
use offer::{BLOCKS, SUBNQN};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const HOSTNQN: &str = "nqn.2014-08.org.nvmexpress:uuid:aaaaaaaa-0000-0000-0000-000000000001";

/// One dialogue: a name, the requirement it proves, and its lines.
pub(crate) struct Block {
    name: String,
    lines: Vec<(usize, String)>,
}

/// Splits a file into its dialogues.
///
/// # Panics
/// When one has no name or cites no requirement.
pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line.strip_prefix("== ") {
            blocks.push(Block { name: name.to_string(), lines: Vec::new() });
        } else if !line.is_empty() {
            let block = blocks.last_mut().expect("a dialogue starts with `== name`");
            block.lines.push((number + 1, line.to_string()));
        }
    }
    for block in &blocks {
        let mut citations = block.lines.iter().filter_map(|(_, line)| line.strip_prefix("! "));
        assert!(citations.clone().count() > 0, "{}: cite with `! SPEC section: text`", block.name);
        assert!(citations.all(is_claimed), "{}: docs/spec lists no such section", block.name);
    }
    blocks
}

/// Whether `docs/spec` lists the section of a citation.
fn is_claimed(citation: &str) -> bool {
    let claims = [
        ("NVMe-Base 2.1 ", include_str!("../../../../docs/spec/nvme-base-2.1.toml")),
        ("NVMe-Base 2.3 ", include_str!("../../../../docs/spec/nvme-base-2.3.toml")),
        ("NVMe-NVM 1.1 ", include_str!("../../../../docs/spec/nvme-nvm-1.1.toml")),
        ("NVMe-TCP 1.1 ", include_str!("../../../../docs/spec/nvme-tcp-1.1.toml")),
    ];
    claims.iter().any(|(title, sections)| {
        let section = citation.strip_prefix(title).and_then(|rest| rest.split(':').next());
        section.is_some_and(|section| sections.contains(&format!("\"{section}\" =")))
    })
}

/// Plays one dialogue.
pub(crate) fn play(file: &str, block: &Block) {
    let mut stage = Stage::new();
    for (number, line) in &block.lines {
        stage.place = format!("{file}:{number}: {}: {line}", block.name);
        stage.line(line);
    }
    if let Some(pdu) = stage.current().and_then(|link| link.received.first().cloned()) {
        panic!("{file}: {}: the target said more: {pdu:?}", block.name);
    }
}

/// `ranges=LBA+BLOCKS,LBA+BLOCKS@NSID!`: the data of Dataset Management (opcode 9) or Copy. The
/// mark at the end sets every source option.
fn descriptors(ranges: &str, opcode: u8, format: u32) -> Vec<u8> {
    let mut data = Vec::new();
    for range in ranges.split(',') {
        let (range, fast) = range.strip_suffix('!').map_or((range, false), |range| (range, true));
        let (range, nsid) = range.split_once('@').unwrap_or((range, "0"));
        let (lba, blocks) = range.split_once('+').expect("LBA+BLOCKS");
        let (lba, blocks): (u64, u32) = (lba.parse().unwrap(), blocks.parse().unwrap());
        let mut bytes = match opcode {
            opcode::nvm::DATASET_MANAGEMENT => vec![0; 16],
            _ => vec![0; if format.is_multiple_of(2) { 32 } else { 40 }],
        };
        bytes[8..16].copy_from_slice(&lba.to_le_bytes());
        if opcode == opcode::nvm::DATASET_MANAGEMENT {
            bytes[4..8].copy_from_slice(&blocks.to_le_bytes());
        } else {
            let nsid: u32 = nsid.parse().unwrap();
            bytes[..4].copy_from_slice(&nsid.to_le_bytes());
            bytes[16..18].copy_from_slice(&u16::try_from(blocks - 1).unwrap().to_le_bytes());
            bytes[22..24].fill(if fast { 0xff } else { 0 });
        }
        data.extend(bytes);
    }
    data
}

/// `key=value` words and bare words of a line.
#[derive(Clone, Debug, Default)]
struct Words {
    values: BTreeMap<String, String>,
    flags: Vec<String>,
}

impl Words {
    fn of(words: &str) -> Words {
        let mut all = Words::default();
        for word in words.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) => drop(all.values.insert(key.into(), value.into())),
                None => all.flags.push(word.into()),
            }
        }
        all
    }

    /// A number: decimal, or hexadecimal with `0x`.
    fn number(&self, key: &str) -> Option<u64> {
        let value = self.values.get(key)?;
        let parsed = match value.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => value.parse(),
        };
        Some(parsed.unwrap_or_else(|_| panic!("{key}={value} is no number")))
    }

    fn u32(&self, key: &str, default: u32) -> u32 {
        self.number(key).map_or(default, |value| u32::try_from(value).unwrap())
    }

    fn u16(&self, key: &str, default: u16) -> u16 {
        self.number(key).map_or(default, |value| u16::try_from(value).unwrap())
    }

    fn u8(&self, key: &str, default: u8) -> u8 {
        self.number(key).map_or(default, |value| u8::try_from(value).unwrap())
    }

    /// Bytes: hexadecimal digits, and `zeroes=N` behind.
    fn bytes(&self) -> Vec<u8> {
        let words = self.flags.iter().filter(|word| *word != "later");
        words
            .flat_map(|word| (0..word.len()).step_by(2).map(|i| hex(&word[i..i + 2])))
            .chain(std::iter::repeat_n(0, self.u32("zeroes", 0) as usize))
            .collect()
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|word| word == flag)
    }
}

/// A PDU that the target sent: its kind and fields, and its data.
#[derive(Clone, Debug)]
struct Heard {
    kind: &'static str,
    fields: BTreeMap<&'static str, u64>,
    data: Vec<u8>,
}

struct Link {
    connection: Connection,
    bytes: Vec<u8>,
    received: Vec<Heard>,
    header_digest: bool,
    data_digest: bool,
    closed: bool,
}

struct Stage {
    target: Arc<Target>,
    offer: Config,
    pool: Pool,
    now: Instant,
    links: BTreeMap<String, Link>,
    name: String,
    cntlid: u16,
    /// By namespace handle, made when first used.
    disks: BTreeMap<u32, Vec<u8>>,
    tables: owner::Tables,
    /// Segments that somebody else has.
    taken: Vec<BufMut>,
    hold: bool,
    held: Vec<(String, u32, Request)>,
    status: Status,
    /// Bytes that go out together with the next ones (`later`).
    unsent: Vec<u8>,
    place: String,
}

impl Stage {
    fn new() -> Stage {
        let pool = PoolConfig { segments: [16, 16, 8, 4, 4], huge_pages: false };
        Stage {
            target: Target::new(offer::initial()).unwrap(),
            offer: offer::initial(),
            pool: Pool::new(&pool).unwrap(),
            now: Instant::from_ns(1),
            links: BTreeMap::new(),
            name: String::new(),
            cntlid: 0,
            disks: BTreeMap::new(),
            tables: BTreeMap::new(),
            taken: Vec::new(),
            hold: false,
            held: Vec::new(),
            status: Status::Ok,
            unsent: Vec::new(),
            place: String::new(),
        }
    }

    fn current(&mut self) -> Option<&mut Link> {
        self.links.get_mut(&self.name)
    }

    fn line(&mut self, line: &str) {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (verb, words) = rest.split_once(' ').unwrap_or((rest, ""));
        match mark {
            "!" => (),
            "on" => self.open(rest),
            "with" => self.with(rest),
            ">" => self.say(verb, &Words::of(words)),
            "<" => self.expect(verb, &Words::of(words)),
            "~" => self.act(verb, &Words::of(words)),
            _ => panic!("{}: what is this line?", self.place),
        }
    }

    /// `on NAME [at ADDRESS]`: a connection of that name, opened when it does not exist.
    fn open(&mut self, words: &str) {
        let (name, address) = words.split_once(" at ").unwrap_or((words, "192.0.2.1:4420"));
        self.name = name.to_string();
        if self.links.contains_key(name) {
            return;
        }
        let index = u32::try_from(self.links.len()).unwrap();
        let mut connection = Connection::new(Arc::clone(&self.target), index);
        let addresses =
            Addresses { local: address.parse().unwrap(), peer: "192.0.2.9:1234".parse().unwrap() };
        assert!(connection.accept(Cx { pool: &self.pool, now: self.now }, addresses));
        let (bytes, received) = (Vec::new(), Vec::new());
        let (header_digest, data_digest, closed) = (false, false, false);
        let link = Link { connection, bytes, received, header_digest, data_digest, closed };
        self.links.insert(name.to_string(), link);
    }

    /// `with admin`, `with io`, `with discovery`: the usual steps up to a working queue. The
    /// connections are called `admin` and `io`, with `as=NAME` `NAME` and `NAME-io`; they come to
    /// `at=ADDRESS`.
    fn with(&mut self, what: &str) {
        let (kind, options) = what.split_once(' ').unwrap_or((what, ""));
        let words = Words::of(options);
        let dgst = words.u8("dgst", 0);
        let value = |key: &str| words.values.get(key).cloned();
        let admin = value("as").unwrap_or("admin".into());
        let queue = value("as").map_or("io".into(), |name| format!("{name}-io"));
        let at = value("at").map_or(String::new(), |address| format!(" at {address}"));
        self.cntlid = 0;
        let subnqn = match kind {
            "discovery" => nvme_spec::DISCOVERY_NQN,
            _ => SUBNQN,
        };
        let script = format!(
            "on {admin}{at}\n> icreq dgst={dgst}\n< icresp dgst={dgst}\n\
             > connect cid=1 subnqn={subnqn} {options}\n< resp cid=1 status=0\n\
             > property-set cid=2 offset=0x14 value=0x460001\n< resp cid=2 status=0"
        );
        let io = format!(
            "on {queue}{at}\n> icreq dgst={dgst}\n< icresp\n> connect cid=1 qid=1 {options}\n\
             < resp cid=1 status=0"
        );
        script.lines().for_each(|line| self.line(line));
        if kind == "io" {
            io.lines().for_each(|line| self.line(line));
        }
    }

    fn say(&mut self, verb: &str, words: &Words) {
        let bytes = match verb {
            "icreq" => self.icreq(words),
            "connect" => self.connect(words),
            "property-get" => {
                let mut sqe = PropertyGetSqe::new_zeroed();
                sqe.fctype = opcode::fctype::PROPERTY_GET;
                sqe.attrib = words.u8("size", 0);
                sqe.offset = U32::new(words.u32("offset", 0));
                self.command(zerocopy::transmute!(sqe), words, opcode::FABRICS)
            }
            "property-set" => {
                let mut sqe = PropertySetSqe::new_zeroed();
                sqe.fctype = opcode::fctype::PROPERTY_SET;
                sqe.attrib = words.u8("size", 0);
                sqe.offset = U32::new(words.u32("offset", 0));
                sqe.value = U64::new(words.number("value").unwrap_or(0));
                self.command(zerocopy::transmute!(sqe), words, opcode::FABRICS)
            }
            "auth-send" => self.authentication(words, opcode::fctype::AUTHENTICATION_SEND),
            "auth-receive" => self.authentication(words, opcode::fctype::AUTHENTICATION_RECEIVE),
            "disconnect" => {
                let mut sqe = Sqe::new_zeroed();
                sqe.nsid = U32::new(u32::from(opcode::fctype::DISCONNECT));
                self.command(sqe, words, opcode::FABRICS)
            }
            "cmd" => {
                let mut sqe = Sqe::new_zeroed();
                sqe.nsid = U32::new(words.u32("nsid", 0));
                sqe.cdw10 = U32::new(words.u32("cdw10", 0));
                sqe.cdw11 = U32::new(words.u32("cdw11", 0));
                sqe.cdw12 = U32::new(words.u32("cdw12", 0));
                sqe.cdw13 = U32::new(words.u32("cdw13", 0));
                sqe.cdw14 = U32::new(words.u32("cdw14", 0));
                let opcode = words.u8("opc", 0);
                self.command(sqe, words, opcode)
            }
            "h2c" => self.h2c(words),
            "raw" => words.bytes(),
            _ => panic!("{}: nothing to say", self.place),
        };
        self.unsent.extend(bytes);
        if !words.has("later") {
            let bytes = std::mem::take(&mut self.unsent);
            self.send(&bytes);
        }
    }

    /// A message in a capsule, or room for one.
    fn authentication(&mut self, words: &Words, fctype: u8) -> Vec<u8> {
        let data = words.bytes();
        let mut sqe = AuthenticationSqe::new_zeroed();
        sqe.fctype = fctype;
        sqe.spsp0 = words.u8("spsp0", 1);
        sqe.spsp1 = words.u8("spsp1", 1);
        sqe.secp = words.u8("secp", 0xe9);
        let len = u32::try_from(data.len()).unwrap().max(words.u32("len", 0));
        sqe.len = U32::new(words.u32("tl", len));
        self.capsule(zerocopy::transmute!(sqe), words, opcode::FABRICS, &data)
    }

    fn icreq(&mut self, words: &Words) -> Vec<u8> {
        let mut req = IcReq::new_zeroed();
        req.ch = header(PduType::IcReq, 0, 0, 128);
        req.pfv = U16::new(words.u16("pfv", 0));
        req.hpda = words.u8("hpda", 0);
        req.dgst = words.u8("dgst", 0);
        req.maxr2t = U32::new(words.u32("maxr2t", 0));
        let link = self.current().expect("say `on NAME` first");
        link.header_digest = req.dgst & 1 != 0;
        link.data_digest = req.dgst & 2 != 0;
        req.as_bytes().to_vec()
    }

    fn connect(&mut self, words: &Words) -> Vec<u8> {
        let mut sqe = ConnectSqe::new_zeroed();
        sqe.fctype = opcode::fctype::CONNECT;
        sqe.recfmt = U16::new(words.u16("recfmt", 0));
        sqe.qid = U16::new(words.u16("qid", 0));
        sqe.sqsize = U16::new(words.u16("sqsize", 31));
        sqe.cattr = words.u8("cattr", 0);
        sqe.kato = U32::new(words.u32("kato", 0));
        let mut data = ConnectData::new_zeroed();
        data.hostid = [words.u8("hostid", 1); 16];
        let default = if sqe.qid.get() == 0 { 0xffff } else { self.cntlid };
        data.cntlid = U16::new(words.u16("cntlid", default));
        let nqn = |key: &str, default: &str, field: &mut [u8]| {
            let name = words.values.get(key).map_or(default, String::as_str);
            field[..name.len()].copy_from_slice(name.as_bytes());
        };
        nqn("subnqn", SUBNQN, &mut data.subnqn);
        nqn("hostnqn", HOSTNQN, &mut data.hostnqn);
        self.capsule(zerocopy::transmute!(sqe), words, opcode::FABRICS, data.as_bytes())
    }

    /// A command with the data that its words describe.
    fn command(&mut self, sqe: Sqe, words: &Words, opcode: u8) -> Vec<u8> {
        let data = match words.values.get("ranges") {
            Some(ranges) => descriptors(ranges, opcode, sqe.cdw12.get() >> 8 & 0xf),
            None if words.values.contains_key("cdfe") => {
                let mut behavior = vec![0; 512];
                behavior[4..6].copy_from_slice(&words.u16("cdfe", 0).to_le_bytes());
                behavior
            }
            None => vec![words.u8("fill", 0); words.u32("capsule", 0) as usize],
        };
        self.capsule(sqe, words, opcode, &data)
    }

    fn capsule(&mut self, mut sqe: Sqe, words: &Words, opcode: u8, data: &[u8]) -> Vec<u8> {
        sqe.opcode = opcode;
        sqe.flags = PSDT_SGL | words.u8("fuse", 0);
        if words.has("prp") {
            sqe.flags = 0;
        }
        sqe.cid = U16::new(words.u16("cid", 0));
        let len = u32::try_from(data.len()).unwrap();
        sqe.dptr = match len {
            0 => Sgl::transport(words.u32("len", 0)),
            _ => Sgl::in_capsule(u64::from(words.u32("sgl-offset", 0)), words.u32("len", len)),
        };
        if let Some(kind) = words.number("sgl") {
            sqe.dptr.kind = u8::try_from(kind).unwrap();
        }
        self.pdu(PduType::CapsuleCmd, 0, sqe.as_bytes(), data)
    }

    fn h2c(&mut self, words: &Words) -> Vec<u8> {
        let data = vec![words.u8("fill", 0); words.u32("len", 0) as usize];
        let mut rest = Vec::new();
        rest.extend(words.u16("cid", 0).to_le_bytes());
        rest.extend(words.u16("ttag", 0).to_le_bytes());
        rest.extend(words.u32("off", 0).to_le_bytes());
        let claimed = words.u32("datal", u32::try_from(data.len()).unwrap());
        rest.extend(claimed.to_le_bytes());
        rest.extend([0; 4]);
        let last = if words.has("last") { 4 } else { 0 };
        let mut bytes = self.pdu(PduType::H2cData, last, &rest, &data);
        if words.has("corrupt") {
            let at = bytes.len() - 1;
            bytes[at] ^= 0xff;
        }
        bytes
    }

    /// A PDU with digests as negotiated.
    fn pdu(&mut self, pdu_type: PduType, flags: u8, rest: &[u8], data: &[u8]) -> Vec<u8> {
        let link = self.current().expect("say `on NAME` first");
        let hdgst = if link.header_digest { 4 } else { 0 };
        let ddgst = if link.data_digest && !data.is_empty() { 4 } else { 0 };
        let hlen = 8 + rest.len();
        let pdo = if data.is_empty() { 0 } else { hlen + hdgst };
        let plen = hlen + hdgst + data.len() + ddgst;
        let digests = u8::from(hdgst > 0) | u8::from(ddgst > 0) << 1;
        let ch = header(pdu_type, flags | digests, pdo, plen);
        let mut bytes = [ch.as_bytes(), rest].concat();
        if hdgst > 0 {
            bytes.extend(crc(&bytes).to_le_bytes());
        }
        bytes.extend(data);
        if ddgst > 0 {
            bytes.extend(crc(data).to_le_bytes());
        }
        bytes
    }

    /// Delivers bytes one by one in the worst way: split at a place that moves.
    fn send(&mut self, bytes: &[u8]) {
        let cx = Cx { pool: &self.pool, now: self.now };
        let link = self.links.get_mut(&self.name).expect("say `on NAME` first");
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = rest.len().min(1 + rest.len() / 2);
            let taken = link.connection.on_bytes(cx, &rest[..len]);
            if taken == 0 {
                break;
            }
            rest = &rest[taken..];
        }
        self.settle();
    }

    /// Lets the target work until nothing moves any more.
    fn settle(&mut self) {
        // A controller that ends on one connection is noticed by the others one round later.
        let mut quiet = 0;
        for _ in 0..1000 {
            let names: Vec<String> = self.links.keys().cloned().collect();
            let moved = names.iter().filter(|name| self.work(name)).count() > 0;
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet == 4 {
                return;
            }
        }
        panic!("{}: it never comes to rest", self.place);
    }

    /// One round of a connection; whether anything moved.
    fn work(&mut self, name: &str) -> bool {
        let mut moved = false;
        let cx = Cx { pool: &self.pool, now: self.now };
        let link = self.links.get_mut(name).unwrap();
        let mut requests = Fifo::new(4);
        link.connection.poll_requests(cx, &mut requests);
        while let Some((handle, request)) = requests.pop() {
            moved = true;
            if self.hold {
                self.held.push((name.to_string(), handle.0, request));
            } else {
                let done = match request.op {
                    Op::Reserve => {
                        owner::reserve(&mut self.tables, &self.target, handle.0, request)
                    }
                    _ => run(disk_of(&mut self.disks, handle.0), self.status, request),
                };
                link.connection.on_completion(cx, done);
            }
        }
        if let Some(mut computation) = link.connection.take_computation() {
            let mut authenticator = Authenticator::new(|bytes: &mut [u8]| bytes.fill(0x11));
            authenticator.compute(&mut computation);
            link.connection.on_computed(cx, computation);
        }
        let mut batch = Batch::with_defaults();
        while link.connection.poll_transmit(cx, &mut batch) {
            moved = true;
            link.bytes.extend(batch.pieces().flatten());
            link.connection.on_sent(cx, &mut batch);
        }
        link.parse();
        link.closed = link.connection.wants_close();
        moved
    }

    fn expect(&mut self, verb: &str, words: &Words) {
        let place = self.place.clone();
        let link = self.current().expect("say `on NAME` first");
        match verb {
            "nothing" => assert!(link.received.is_empty(), "{place}: heard {:?}", link.received),
            "closed" => assert!(link.closed, "{place}: it is open"),
            "open" => assert!(!link.closed, "{place}: it is closed"),
            _ => {
                assert!(!link.received.is_empty(), "{place}: the target said nothing");
                let heard = link.received.remove(0);
                heard.check(&place, verb, words);
                if let (Some(&cntlid), "resp") = (heard.fields.get("dw0"), verb)
                    && words.number("cid") == Some(1)
                    && !self.name.ends_with("io")
                    && self.cntlid == 0
                {
                    self.cntlid = u16::try_from(cntlid & 0xffff).unwrap_or(0);
                }
            }
        }
    }

    /// `~ ...`: something that happens on the target's side.
    fn act(&mut self, verb: &str, words: &Words) {
        match verb {
            "wait" => {
                let ns = words.number("ms").unwrap() * 1_000_000;
                self.now = Instant::from_ns(self.now.as_ns() + ns);
                let cx = Cx { pool: &self.pool, now: self.now };
                self.links.values_mut().for_each(|link| link.connection.on_timeout(cx));
            }
            "fail" => {
                let status = words.number("status").unwrap();
                self.status = Status::from_u8(u8::try_from(status).unwrap()).unwrap();
            }
            "hold" => self.hold = true,
            "health" => {
                let handle = NamespaceHandle(words.u32("handle", 1));
                let degraded = words.has("degraded");
                self.target.set_health(handle, Health { spare: words.u8("spare", 100), degraded });
            }
            "take-pool" => {
                let sizes = [1 << 20, 256 << 10, 64 << 10, 16 << 10, 4096];
                for size in sizes {
                    self.taken.extend(std::iter::from_fn(|| self.pool.take(size)));
                }
            }
            "give-pool" => self.taken.clear(),
            "release" | "step" => {
                self.hold = verb == "step";
                let cx = Cx { pool: &self.pool, now: self.now };
                for (name, handle, request) in std::mem::take(&mut self.held) {
                    let done = run(disk_of(&mut self.disks, handle), self.status, request);
                    let link = self.links.get_mut(&name).unwrap();
                    link.connection.on_completion(cx, done);
                }
            }
            "peer-closes" => {
                let cx = Cx { pool: &self.pool, now: self.now };
                let link = self.links.get_mut(&self.name).unwrap();
                link.connection.on_closed(cx);
            }
            _ => {
                let known = offer::act(&mut self.offer, &self.target, verb, words);
                assert!(known, "{}: no such act", self.place);
            }
        }
        self.settle();
    }
}

fn disk_of(disks: &mut BTreeMap<u32, Vec<u8>>, handle: u32) -> &mut Vec<u8> {
    disks.entry(handle).or_insert_with(|| vec![0; 4096 * usize::try_from(BLOCKS).unwrap()])
}

fn run(disk: &mut [u8], status: Status, request: Request) -> Completion {
    if !status.is_ok() {
        return request.complete(status);
    }
    let start = usize::try_from(request.lba.0).unwrap() * 4096;
    let range = &mut disk[start..start + request.blocks as usize * 4096];
    let Request { tag, op, mut data, .. } = request;
    match (&mut data, op) {
        (Data::Into(buf), Op::Read) => buf.bytes_mut()[..range.len()].copy_from_slice(range),
        (Data::From(buf), Op::Write) => range.copy_from_slice(&buf.bytes()[..range.len()]),
        (Data::From(buf), Op::Compare) if buf.bytes()[..range.len()] != *range => {
            return Completion { tag, data, status: Status::Miscompare };
        }
        (Data::From(buf), Op::CompareAndWrite) => {
            let (old, new) = buf.bytes()[..2 * range.len()].split_at(range.len());
            if range != old {
                return Completion { tag, data, status: Status::Miscompare };
            }
            range.copy_from_slice(new);
        }
        (Data::None, Op::WriteZeroes | Op::Deallocate) => range.fill(0),
        _ => (),
    }
    Completion { tag, data, status }
}

impl Link {
    /// Takes apart what the target sent.
    fn parse(&mut self) {
        while self.bytes.len() >= 8 {
            let ch = CommonHeader::read_from_prefix(&self.bytes).unwrap().0;
            let (hlen, plen) = (usize::from(ch.hlen), ch.plen.get() as usize);
            assert!(plen <= self.bytes.len(), "PDUs are sent whole");
            let pdu: Vec<u8> = self.bytes.drain(..plen).collect();
            let kind = PduType::from_byte(ch.pdu_type).expect("the target sends known PDUs");
            let digests = !matches!(kind, PduType::IcResp | PduType::C2hTermReq);
            assert_eq!(ch.flags & 1 != 0, digests && self.header_digest);
            if ch.flags & 1 != 0 {
                let digest = pdu[hlen..hlen + 4].try_into().unwrap();
                assert_eq!(crc(&pdu[..hlen]), u32::from_le_bytes(digest), "header digest");
            }
            let ddgst = if ch.flags & 2 != 0 { 4 } else { 0 };
            let pdo = if kind == PduType::C2hTermReq { hlen } else { usize::from(ch.pdo) };
            let data = if pdo > 0 { pdu[pdo..plen - ddgst].to_vec() } else { Vec::new() };
            if ddgst > 0 {
                let digest = pdu[plen - 4..].try_into().unwrap();
                assert_eq!(crc(&data), u32::from_le_bytes(digest), "data digest");
            }
            self.received.push(Heard::of(kind, &ch, &pdu, data));
        }
    }
}

impl Heard {
    fn of(kind: PduType, ch: &CommonHeader, pdu: &[u8], data: Vec<u8>) -> Heard {
        let at = |offset: usize, len: usize| {
            pdu[offset..offset + len].iter().rev().fold(0, |sum, &b| sum << 8 | u64::from(b))
        };
        let (kind, fields): (_, Vec<(&'static str, u64)>) = match kind {
            PduType::IcResp => {
                let fields = [("pfv", at(8, 2)), ("cpda", at(10, 1)), ("dgst", at(11, 1))];
                ("icresp", [&fields[..], &[("maxh2cdata", at(12, 4))]].concat())
            }
            PduType::CapsuleResp => {
                let field = at(22, 2);
                let results = [("dw0", at(8, 4)), ("dw1", at(12, 4)), ("sqhd", at(16, 2))];
                let ends = [
                    ("cid", at(20, 2)),
                    ("status", field >> 1 & 0x7ff),
                    ("more", field >> 14 & 1),
                    ("dnr", field >> 15),
                ];
                ("resp", [&results[..], &ends].concat())
            }
            PduType::C2hData => {
                let flags = u64::from(ch.flags);
                let bits = [("last", flags >> 2 & 1), ("success", flags >> 3 & 1)];
                let place = [("cid", at(8, 2)), ("off", at(12, 4)), ("len", at(16, 4))];
                ("data", [&bits[..], &place, &[("pdo", u64::from(ch.pdo))]].concat())
            }
            PduType::R2t => {
                let tags = [("cid", at(8, 2)), ("ttag", at(10, 2))];
                ("r2t", [tags, [("off", at(12, 4)), ("len", at(16, 4))]].concat())
            }
            PduType::C2hTermReq => ("term", vec![("fes", at(8, 2)), ("fei", at(10, 4))]),
            other => panic!("a target never sends {other:?}"),
        };
        Heard { kind, fields: fields.into_iter().collect(), data }
    }

    /// Compares with what the script says: only the fields that it names.
    fn check(&self, place: &str, verb: &str, words: &Words) {
        assert_eq!(self.kind, verb, "{place}: heard {:?}", self.fields);
        for key in words.values.keys() {
            // `at12=0x3456`: bytes of the data, as a little-endian number of that many digits.
            if let Some(offset) = key.strip_prefix("at").and_then(|at| at.parse::<usize>().ok()) {
                let digits = words.values[key].trim_start_matches("0x").len();
                let bytes = &self.data[offset..offset + digits.div_ceil(2)];
                let value = bytes.iter().rev().fold(0, |sum, &b| sum << 8 | u64::from(b));
                let expected = words.number(key);
                assert_eq!(Some(value), expected, "{place}: byte {offset} is {value:#x}");
                continue;
            }
            if key == "fill" {
                let fill = words.u8("fill", 0);
                assert!(self.data.iter().all(|&b| b == fill), "{place}: other data");
                continue;
            }
            let heard = self.fields.get(key.as_str()).copied();
            assert_eq!(heard, words.number(key), "{place}: heard {:x?}", self.fields);
        }
        for flag in &words.flags {
            assert_eq!(self.fields.get(flag.as_str()), Some(&1), "{place}: {:x?}", self.fields);
        }
    }
}

fn header(pdu_type: PduType, flags: u8, pdo: usize, plen: usize) -> CommonHeader {
    CommonHeader {
        pdu_type: pdu_type as u8,
        flags,
        hlen: u8::try_from(pdu_type.header_len()).unwrap(),
        pdo: u8::try_from(pdo).unwrap(),
        plen: U32::new(u32::try_from(plen).unwrap()),
    }
}

fn crc(bytes: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes)).unwrap()
}

fn hex(digits: &str) -> u8 {
    u8::from_str_radix(digits, 16).unwrap()
}
