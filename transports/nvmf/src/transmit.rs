//! What goes out: responses, data, R2Ts, and the last words.

use bdev::Buf;
use net::Batch;
use nvme_spec::{
    C2hDataHeader, CapsuleRespHeader, CommonHeader, Cqe, DIGEST_LEN, IcResp, NvmeStatus, PduType,
    R2tHeader, TERM_DATA_MAX, TermReqHeader, U16, U32, digest_flags, pdu_flags,
};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use crate::command::{Command, Segment, Transfer};
use crate::connection::Connection;
use crate::digest::{crc32c, of_buffer};
use crate::framer::{Fault, narrow};
use crate::limits::H2C_DATA_MAX;

/// Something to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Out {
    IcResp,
    /// Ask for the next part of a command's data.
    R2t(u32),
    /// A command's data and response.
    Done(u32),
    /// The terminate request.
    Term,
}

/// Scratch that one entry needs at most: the largest header, digests, padding up to the largest
/// alignment, and a response.
const SCRATCH_MAX: usize = 256;
/// Pieces that one entry needs at most: header, data, digest and response.
const PIECES_MAX: usize = 3;

const _: () = assert!(SCRATCH_MAX >= 24 + DIGEST_LEN + 128 + DIGEST_LEN + 24 + DIGEST_LEN);
const _: () = assert!(SCRATCH_MAX >= size_of::<TermReqHeader>() + TERM_DATA_MAX);

/// A terminate request, ready to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TermReq {
    fault: Fault,
    header: [u8; TERM_DATA_MAX],
    len: usize,
}

impl TermReq {
    /// Quotes the header at the front of `bytes`.
    pub(crate) fn new(fault: Fault, bytes: &[u8]) -> TermReq {
        let hlen = bytes.get(2).map_or(bytes.len(), |&hlen| usize::from(hlen));
        let len = bytes.len().min(hlen).min(TERM_DATA_MAX);
        let mut header = [0; TERM_DATA_MAX];
        header[..len].copy_from_slice(&bytes[..len]);
        TermReq { fault, header, len }
    }
}

impl Connection {
    /// Moves as much as fits from the outbox into `batch`; how many pool bytes it holds now.
    pub(crate) fn fill(&mut self, batch: &mut Batch) -> usize {
        let mut held = 0;
        while batch.pieces_room() >= PIECES_MAX && batch.scratch_room() >= SCRATCH_MAX {
            let Some(out) = self.outbox.pop() else { break };
            match out {
                Out::IcResp => self.put_ic_resp(batch),
                Out::R2t(key) => self.put_r2t(batch, key),
                Out::Done(key) => held += self.put_done(batch, key),
                Out::Term => self.put_term(batch),
            }
        }
        held
    }

    fn put_ic_resp(&mut self, batch: &mut Batch) {
        let mut resp = IcResp::new_zeroed();
        let len = size_of::<IcResp>();
        resp.ch = common(PduType::IcResp, 0, 0, len);
        let digests = self.framer.digests;
        resp.dgst = if digests.header { digest_flags::HEADER } else { 0 };
        resp.dgst |= if digests.data { digest_flags::DATA } else { 0 };
        //= NVMe-TCP 1.1 §3.6.2.3
        //# MAXH2CDATA is at least 4096 and a multiple of dwords
        resp.maxh2cdata = U32::new(H2C_DATA_MAX);
        put(batch, resp.as_bytes());
    }

    fn put_r2t(&mut self, batch: &mut Batch, key: u32) {
        // The command is gone when the connection began to close meanwhile.
        let Some(command) = self.commands.get_mut(key) else { return };
        command.asked = true;
        let mut r2t = R2tHeader::new_zeroed();
        r2t.cccid = command.sqe.cid;
        r2t.ttag = U16::new(u16::try_from(key).expect("fewer than 2^16 commands"));
        r2t.r2to = U32::new(command.moved);
        r2t.r2tl = U32::new(command.granted - command.moved);
        self.put_header(batch, PduType::R2t, 0, &mut r2t, |r2t, ch| r2t.ch = ch);
    }

    /// Sends a command's data and response, and forgets the command.
    fn put_done(&mut self, batch: &mut Batch, key: u32) -> usize {
        let mut command = self.commands.remove(key).expect("answered once");
        let held = command.held;
        match (command.plan.transfer, std::mem::take(&mut command.segment)) {
            (Transfer::ToHost(len), Segment::Filled(buf)) => {
                let quiet = self.may_omit_response(&command);
                self.put_data(batch, &command, buf, len, quiet);
                if !quiet {
                    self.put_response(batch, &command);
                }
                held
            }
            _ => {
                assert_eq!(held, 0, "a buffer that does not go out was given back");
                self.put_response(batch, &command);
                0
            }
        }
    }

    /// Whether the last data PDU can say success by itself.
    //= NVMe-TCP 1.1 §3.6.2.9
    //# SUCCESS needs SQ flow control disabled, since no response carries SQHD, and nothing in DW0
    fn may_omit_response(&self, command: &Command) -> bool {
        let flow_control = self.queue.as_ref().is_none_or(|queue| queue.flow_control);
        !flow_control && command.dw0 == 0 && command.dw1 == 0
    }

    fn put_data(&mut self, batch: &mut Batch, command: &Command, buf: Buf, len: u32, quiet: bool) {
        let digests = self.framer.digests;
        let mut flags = pdu_flags::LAST | if quiet { pdu_flags::SUCCESS } else { 0 };
        flags |= if digests.data { pdu_flags::DDGST } else { 0 };
        flags |= if digests.header { pdu_flags::HDGST } else { 0 };
        let hlen = size_of::<C2hDataHeader>() + digests.header_len();
        //= NVMe-TCP 1.1 §3.6.2.2
        //# HPDA: data in PDUs to the host starts at a multiple of this
        let pdo = hlen.next_multiple_of(self.hpda);
        let plen = pdo + len as usize + digests.data_len();
        let mut header = C2hDataHeader::new_zeroed();
        header.ch = common(PduType::C2hData, flags, pdo, plen);
        header.cccid = command.sqe.cid;
        header.datal = U32::new(len);
        put(batch, header.as_bytes());
        if digests.header {
            put(batch, &crc32c(header.as_bytes()).to_le_bytes());
        }
        if pdo > hlen {
            batch.push_scratch(pdo - hlen).expect("room was checked");
        }
        let digest = digests.data.then(|| of_buffer(&buf, len as usize));
        batch.push_buf(buf, 0, len as usize).expect("room was checked");
        if let Some(digest) = digest {
            put(batch, &digest.to_le_bytes());
        }
    }

    fn put_response(&mut self, batch: &mut Batch, command: &Command) {
        let more = if command.more { NvmeStatus::MORE } else { 0 };
        let mut resp = CapsuleRespHeader::new_zeroed();
        resp.cqe = Cqe {
            dw0: U32::new(command.dw0),
            dw1: U32::new(command.dw1),
            sqhd: U16::new(self.next_sqhd(command)),
            sqid: U16::new(0),
            cid: command.sqe.cid,
            status: U16::new(command.status.to_field() | more),
        };
        self.put_header(batch, PduType::CapsuleResp, 0, &mut resp, |resp, ch| resp.ch = ch);
    }

    /// SQHD of the next response: one further for each command that is answered.
    //= NVMe-Base 2.1 §6.3
    //# with SQ flow control disabled Connect answers SQHD FFFFh and later ones are reserved
    fn next_sqhd(&mut self, command: &Command) -> u16 {
        if command.sqhd_override {
            return 0xffff;
        }
        match &mut self.queue {
            Some(queue) if queue.flow_control => {
                queue.sqhd = (queue.sqhd + 1) % queue.entries;
                queue.sqhd
            }
            _ => 0,
        }
    }

    fn put_term(&mut self, batch: &mut Batch) {
        let Some(term) = self.term.take() else { return };
        let mut header = TermReqHeader::new_zeroed();
        let plen = size_of::<TermReqHeader>() + term.len;
        header.ch = common(PduType::C2hTermReq, 0, 0, plen);
        header.fes = U16::new(term.fault.fes as u16);
        header.fei = U32::new(term.fault.fei);
        put(batch, header.as_bytes());
        if term.len > 0 {
            put(batch, &term.header[..term.len]);
        }
    }

    /// A PDU without data: its header, and its digest.
    fn put_header<T: IntoBytes + Immutable>(
        &self,
        batch: &mut Batch,
        pdu_type: PduType,
        flags: u8,
        header: &mut T,
        set: fn(&mut T, CommonHeader),
    ) {
        let digest = self.framer.digests.header;
        let flags = flags | if digest { pdu_flags::HDGST } else { 0 };
        let plen = size_of::<T>() + self.framer.digests.header_len();
        set(header, common(pdu_type, flags, 0, plen));
        put(batch, header.as_bytes());
        if digest {
            put(batch, &crc32c(header.as_bytes()).to_le_bytes());
        }
    }
}

/// A common header.
pub(crate) fn common(pdu_type: PduType, flags: u8, pdo: usize, plen: usize) -> CommonHeader {
    CommonHeader {
        pdu_type: pdu_type as u8,
        flags,
        hlen: u8::try_from(pdu_type.header_len()).expect("headers are at most 128 bytes"),
        pdo: u8::try_from(pdo).expect("alignment is at most 128 bytes"),
        plen: U32::new(narrow(plen)),
    }
}

fn put(batch: &mut Batch, bytes: &[u8]) {
    assert!(batch.push_bytes(bytes), "room was checked");
}
