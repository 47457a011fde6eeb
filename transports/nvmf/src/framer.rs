//! PDU framing, shared by both sides: from received bytes to checked headers and streams of data.
//!
//! Received bytes lie in one segment, between `start` and `end`. The owner asks for the next
//! header, decides whether it has what the PDU needs, consumes it, and drains its data; or it
//! leaves the header where it is and tries again later: so back-pressure reaches the socket.

use bdev::BufMut;
use net::Landing;
use nvme_spec::{CommonHeader, DIGEST_LEN, FatalError, PduType, pdu_flags};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::digest::{PduDigests, crc32c};
use crate::limits::{DIRECT_RECEIVE_MIN, RECEIVE_SEGMENT};

/// Which digests a connection uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// HDGST: headers.
    pub header: bool,
    /// DDGST: data.
    pub data: bool,
}

impl Digests {
    pub(crate) fn header_len(self) -> usize {
        if self.header { DIGEST_LEN } else { 0 }
    }

    pub(crate) fn data_len(self) -> usize {
        if self.data { DIGEST_LEN } else { 0 }
    }
}

/// An error that framing does not survive: what a terminate request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) fes: FatalError,
    /// The offset of the field in error; 0 where FES has no field.
    pub(crate) fei: u32,
}

impl Fault {
    pub(crate) const fn field(offset: u32) -> Fault {
        Fault { fes: FatalError::InvalidHeaderField, fei: offset }
    }

    pub(crate) const fn of(fes: FatalError) -> Fault {
        Fault { fes, fei: 0 }
    }
}

/// A checked PDU header that was not consumed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) pdu_type: PduType,
    pub(crate) flags: u8,
    /// Bytes of data behind the header.
    pub(crate) data_len: u32,
    /// Bytes before the data: header, digest and padding.
    skip: usize,
}

/// What one side accepts: its PDU types, and the largest data of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepts {
    /// The most data bytes of a PDU type; `None` for a type that never comes this way.
    pub(crate) data_max: fn(PduType) -> Option<u32>,
}

/// The receive side of one connection.
#[derive(Debug)]
pub(crate) struct Framer {
    accepts: Accepts,
    pub(crate) digests: Digests,
    segment: Option<BufMut>,
    start: usize,
    end: usize,
    data: Option<DataPhase>,
    /// Of the current PDU's data, and of the last one's until the next begins.
    sums: PduDigests,
}

#[derive(Clone, Copy, Debug)]
struct DataPhase {
    remaining: u32,
    /// A digest follows.
    digest: bool,
}

impl Framer {
    pub(crate) fn new(accepts: Accepts) -> Framer {
        let digests = Digests::default();
        let (segment, data, sums) = (None, None, PduDigests::new());
        Framer { accepts, digests, segment, start: 0, end: 0, data, sums }
    }

    /// Starts over for a new connection, receiving into `segment`.
    pub(crate) fn open(&mut self, segment: BufMut) {
        *self = Framer::new(self.accepts);
        self.segment = Some(segment);
    }

    /// Lets the segment go.
    pub(crate) fn close(&mut self) {
        *self = Framer::new(self.accepts);
    }

    /// Where to receive next, into the segment; `None` while it is out or full.
    pub(crate) fn landing(&mut self) -> Option<Landing> {
        let mut segment = self.segment.take()?;
        let capacity = segment.capacity().min(RECEIVE_SEGMENT);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == capacity || capacity - self.end < capacity / 4 {
            segment.bytes_mut().copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = capacity - self.end;
        if room == 0 {
            self.segment = Some(segment);
            return None;
        }
        let (offset, len) = (narrow(self.end), narrow(room));
        Some(Landing::new(segment, offset, len))
    }

    /// The landing came back with `len` bytes.
    pub(crate) fn on_received(&mut self, landing: Landing, len: u32) {
        assert!(self.segment.is_none(), "one landing is out at a time");
        assert_eq!(landing.offset() as usize, self.end, "the landing that was handed out");
        self.segment = Some(landing.into_buf());
        self.end += len as usize;
    }

    /// Drops everything that has arrived: the connection is closing.
    pub(crate) fn discard(&mut self) {
        self.data = None;
        if self.segment.is_some() {
            self.start = self.end;
        }
    }

    /// Bytes received and not consumed.
    pub(crate) fn buffered(&self) -> &[u8] {
        match &self.segment {
            Some(segment) => &segment.bytes()[self.start..self.end],
            None => &[],
        }
    }

    /// Whether the PDU whose data is being received is better received into its own segment: how
    /// many bytes to ask for.
    pub(crate) fn direct_len(&self) -> Option<u32> {
        let remaining = self.data?.remaining;
        (self.start == self.end && remaining >= DIRECT_RECEIVE_MIN).then_some(remaining)
    }

    /// The next header, checked; `None` when more bytes are needed. It stays until it is consumed.
    pub(crate) fn head(&self) -> Result<Option<Head>, Fault> {
        assert!(self.data.is_none(), "the data of the last PDU comes first");
        let bytes = self.buffered();
        let Ok((ch, _)) = CommonHeader::ref_from_prefix(bytes) else { return Ok(None) };
        let head = self.check(ch)?;
        if bytes.len() < head.skip {
            return Ok(None);
        }
        let hlen = head.pdu_type.header_len();
        if self.digest_len(head.pdu_type) > 0 {
            //= NVMe-TCP 1.1 §3.6.1.2
            //# a header digest that does not match is a fatal transport error
            let received = bytes[hlen..hlen + DIGEST_LEN].try_into().expect("four bytes");
            if crc32c(&bytes[..hlen]) != u32::from_le_bytes(received) {
                return Err(Fault::of(FatalError::HeaderDigestError));
            }
        }
        Ok(Some(head))
    }

    /// Checks a common header against its type and what was negotiated.
    //= NVMe-TCP 1.1 §3.6.2.1
    //# HLEN, PDO and PLEN must fit the PDU type; FEI is the offset of the field in error
    fn check(&self, ch: &CommonHeader) -> Result<Head, Fault> {
        let pdu_type = PduType::from_byte(ch.pdu_type).ok_or(Fault::field(0))?;
        let data_max = (self.accepts.data_max)(pdu_type).ok_or(Fault::field(0))?;
        let hlen = pdu_type.header_len();
        if usize::from(ch.hlen) != hlen {
            return Err(Fault::field(2));
        }
        let (hdgst, plen) = (self.digest_len(pdu_type), ch.plen.get() as usize);
        let digestless = !takes_digest(pdu_type);
        if !digestless && (ch.flags & pdu_flags::HDGST != 0) != self.digests.header {
            return Err(Fault::field(1));
        }
        if plen < hlen + hdgst {
            return Err(Fault::field(4));
        }
        if plen == hlen + hdgst {
            return Ok(Head { pdu_type, flags: ch.flags, data_len: 0, skip: plen });
        }
        let term = matches!(pdu_type, PduType::H2cTermReq | PduType::C2hTermReq);
        let ddgst = if term { 0 } else { self.digests.data_len() };
        if !term && (ch.flags & pdu_flags::DDGST != 0) != self.digests.data {
            return Err(Fault::field(1));
        }
        let pdo = if term { hlen } else { usize::from(ch.pdo) };
        if pdo < hlen + hdgst || !pdo.is_multiple_of(4) || pdo > plen {
            return Err(Fault::field(3));
        }
        let data_len = plen.checked_sub(pdo + ddgst).ok_or(Fault::field(4))?;
        if data_len == 0 || data_len > data_max as usize {
            return Err(Fault::field(4));
        }
        Ok(Head { pdu_type, flags: ch.flags, data_len: narrow(data_len), skip: pdo })
    }

    fn digest_len(&self, pdu_type: PduType) -> usize {
        if takes_digest(pdu_type) { self.digests.header_len() } else { 0 }
    }

    /// A copy of the header that [`Framer::head`] found.
    pub(crate) fn read<T: FromBytes + KnownLayout + Immutable>(&self) -> T {
        T::read_from_prefix(self.buffered()).expect("head found a whole header").0
    }

    /// Goes past the header; its data, if any, is next.
    pub(crate) fn consume(&mut self, head: Head) {
        self.start += head.skip;
        assert!(self.start <= self.end);
        if head.data_len > 0 {
            let digest = self.digests.data
                && !matches!(head.pdu_type, PduType::H2cTermReq | PduType::C2hTermReq);
            self.sums.clear();
            self.data = Some(DataPhase { remaining: head.data_len, digest });
        }
    }

    /// Bytes of the current PDU's data that were not taken yet; `None` between PDUs.
    pub(crate) fn data_remaining(&self) -> Option<u32> {
        self.data.map(|data| data.remaining)
    }

    /// Copies what has arrived of the current PDU's data into `into`; how many bytes.
    pub(crate) fn take_data(&mut self, into: &mut [u8]) -> usize {
        let Some((bytes, data)) = self.arrived() else { return 0 };
        let len = bytes.len().min(into.len());
        into[..len].copy_from_slice(&bytes[..len]);
        self.taken(len, data);
        len
    }

    /// Drops what has arrived of the current PDU's data, at most `max` bytes; how many.
    pub(crate) fn skip_data(&mut self, max: u32) -> usize {
        let Some((bytes, data)) = self.arrived() else { return 0 };
        let len = bytes.len().min(max as usize);
        self.taken(len, data);
        len
    }

    fn arrived(&self) -> Option<(&[u8], DataPhase)> {
        let data = self.data?;
        let bytes = self.buffered();
        Some((&bytes[..bytes.len().min(data.remaining as usize)], data))
    }

    fn taken(&mut self, len: usize, mut data: DataPhase) {
        if data.digest && len > 0 {
            let segment = self.segment.as_ref().expect("it holds what arrived");
            self.sums.update(&segment.bytes()[self.start..self.start + len]);
        }
        data.remaining -= narrow(len);
        self.start += len;
        self.data = Some(data);
    }

    /// Bytes of the current PDU's data arrived elsewhere (a direct landing).
    pub(crate) fn on_direct(&mut self, bytes: &[u8]) {
        let data = self.data.as_mut().expect("a direct landing is for the current PDU");
        if data.digest {
            self.sums.update(bytes);
        }
        data.remaining -= narrow(bytes.len());
    }

    /// The digests of the last PDU's blocks of 4 KiB, when it carried a digest.
    pub(crate) fn block_digests(&self) -> &[u32] {
        if self.digests.data { self.sums.blocks() } else { &[] }
    }

    /// Ends the current PDU when all its data was taken: whether its digest matched. `None` when
    /// bytes are missing.
    pub(crate) fn finish_data(&mut self) -> Option<bool> {
        let data = self.data?;
        if data.remaining > 0 {
            return None;
        }
        let intact = match data.digest {
            false => true,
            true => {
                let bytes = self.buffered().get(..DIGEST_LEN)?;
                let received = bytes.try_into().expect("four bytes");
                let intact = self.sums.finish() == u32::from_le_bytes(received);
                self.start += DIGEST_LEN;
                intact
            }
        };
        self.data = None;
        Some(intact)
    }
}

/// Whether PDUs of this type carry a header digest when it is negotiated.
fn takes_digest(pdu_type: PduType) -> bool {
    !matches!(
        pdu_type,
        PduType::IcReq | PduType::IcResp | PduType::H2cTermReq | PduType::C2hTermReq
    )
}

/// Lengths of segments and PDUs fit 32 bits.
pub(crate) fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("segments and PDUs are smaller than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bdev::{Pool, PoolConfig};

    const HOST: Accepts = Accepts {
        data_max: |pdu_type| match pdu_type {
            PduType::CapsuleCmd => Some(64),
            PduType::IcReq => Some(0),
            _ => None,
        },
    };

    fn framer(pool: &Pool, digests: Digests, bytes: &[u8]) -> Framer {
        let mut framer = Framer::new(HOST);
        framer.open(pool.take(RECEIVE_SEGMENT).unwrap());
        framer.digests = digests;
        let mut landing = framer.landing().unwrap();
        landing.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        framer.on_received(landing, narrow(bytes.len()));
        framer
    }

    fn capsule(flags: u8, pdo: u8, plen: u8) -> Vec<u8> {
        let mut bytes = vec![0; 256];
        bytes[..5].copy_from_slice(&[0x04, flags, 72, pdo, plen]);
        bytes
    }

    #[test]
    fn each_field_of_the_common_header_is_checked_and_named() {
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let head = |bytes: &[u8]| framer(&pool, Digests::default(), bytes).head();
        let fault = |fei| Err(Fault { fes: FatalError::InvalidHeaderField, fei });
        assert_eq!(head(&[0x55, 0, 72, 0, 72, 0, 0, 0]), fault(0));
        assert_eq!(head(&[0x07, 0, 24, 0, 24, 0, 0, 0]), fault(0));
        assert_eq!(head(&[0x04, 1, 72, 0, 72, 0, 0, 0]), fault(1));
        assert_eq!(head(&[0x04, 0, 71, 0, 72, 0, 0, 0]), fault(2));
        assert_eq!(head(&[0x04, 0, 72, 71, 76, 0, 0, 0]), fault(3));
        assert_eq!(head(&[0x04, 0, 72, 74, 80, 0, 0, 0]), fault(3));
        assert_eq!(head(&[0x04, 0, 72, 0, 71, 0, 0, 0]), fault(4));
        assert_eq!(head(&[0x04, 0, 72, 72, 72 + 65, 0, 0, 0]), fault(4));
        assert_eq!(head(&[0x04, 0, 72, 0, 72, 0, 0]), Ok(None));
        assert_eq!(head(&capsule(0, 72, 72 + 64)).unwrap().unwrap().data_len, 64);
    }

    #[test]
    fn data_comes_out_in_pieces_behind_its_padding() {
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let mut bytes = capsule(0, 80, 90);
        bytes[80..90].copy_from_slice(b"0123456789");
        let mut framer = framer(&pool, Digests::default(), &bytes[..84]);
        let head = framer.head().unwrap().unwrap();
        framer.consume(head);
        let mut into = [0; 10];
        assert_eq!(framer.take_data(&mut into), 4);
        assert_eq!(framer.finish_data(), None);
        let mut landing = framer.landing().unwrap();
        landing.bytes_mut()[..6].copy_from_slice(&bytes[84..90]);
        framer.on_received(landing, 6);
        assert_eq!(framer.take_data(&mut into[4..]), 6);
        assert_eq!(framer.finish_data(), Some(true));
        assert_eq!((&into, framer.data_remaining()), (b"0123456789", None));
    }

    #[test]
    fn digests_are_checked() {
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let both = Digests { header: true, data: true };
        let mut bytes = capsule(3, 76, 76 + 8 + 4);
        let header = crc32c(&bytes[..72]);
        bytes[72..76].copy_from_slice(&header.to_le_bytes());
        bytes[76..84].copy_from_slice(b"datadata");
        let data = crc32c(b"datadata");
        bytes[84..88].copy_from_slice(&data.to_le_bytes());
        let run = |bytes: &[u8]| {
            let mut framer = framer(&pool, both, &bytes[..88]);
            let head = framer.head()?.expect("all bytes are there");
            framer.consume(head);
            framer.skip_data(8);
            Ok(framer.finish_data().expect("all bytes are there"))
        };
        assert_eq!(run(&bytes), Ok(true));
        bytes[85] ^= 1;
        assert_eq!(run(&bytes), Ok(false));
        bytes[20] ^= 1;
        assert_eq!(run(&bytes), Err(Fault::of(FatalError::HeaderDigestError)));
    }
}
