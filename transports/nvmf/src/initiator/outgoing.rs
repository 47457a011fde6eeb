//! What a host sends: ICReq, commands and the data that was asked for.

use bdev::Buf;
use net::Batch;
use nvme_spec::{
    CapsuleCmdHeader, DIGEST_LEN, H2cDataHeader, IcReq, PSDT_SGL, PduType, Sgl, U16, U32,
    digest_flags, pdu_flags,
};
use zerocopy::{FromZeros, IntoBytes};

use super::queue::{Initiator, Out};
use crate::digest::crc32c;
use crate::framer::Digests;
use crate::limits::IN_CAPSULE_MAX;
use crate::transmit::common;

/// Scratch that one entry of the outbox needs at most.
const SCRATCH_MAX: usize = 256;

const _: () = assert!(SCRATCH_MAX >= size_of::<IcReq>());
const _: () = assert!(SCRATCH_MAX >= size_of::<CapsuleCmdHeader>() + 2 * DIGEST_LEN);

impl Initiator {
    /// Fills an empty `batch` with what is to be sent; false when there is nothing. Hand it back
    /// with [`Initiator::on_sent`] before the next.
    pub fn poll_transmit(&mut self, batch: &mut Batch) -> bool {
        if self.batch_out || !self.is_open() {
            return false;
        }
        while batch.pieces_room() >= 3 && batch.scratch_room() >= SCRATCH_MAX {
            let Some(out) = self.outbox.pop() else { break };
            match out {
                Out::IcReq => self.put_ic_req(batch),
                Out::Command(key) => self.put_command(batch, key),
                Out::Data(key) => self.put_data(batch, key),
            }
        }
        self.batch_out = !batch.is_empty();
        self.batch_out
    }

    /// The batch was sent, or will never be. It is emptied.
    pub fn on_sent(&mut self, batch: &mut Batch) {
        batch.clear();
        self.batch_out = false;
    }

    fn put_ic_req(&mut self, batch: &mut Batch) {
        let mut req = IcReq::new_zeroed();
        req.ch = common(PduType::IcReq, 0, 0, size_of::<IcReq>());
        req.hpda = self.options.hpda;
        req.dgst = if self.options.digests.header { digest_flags::HEADER } else { 0 };
        req.dgst |= if self.options.digests.data { digest_flags::DATA } else { 0 };
        put(batch, req.as_bytes());
    }

    fn put_command(&mut self, batch: &mut Batch, key: u32) {
        let digests = self.framer.digests;
        // Admin and Fabrics capsules have 8 KiB for data by definition.
        let in_capsule_max =
            if self.options.qid == 0 { IN_CAPSULE_MAX } else { self.options.in_capsule_max };
        let pending = self.pending.get_mut(key).expect("queued commands are pending");
        let in_capsule = match &pending.from {
            Some(buf) if pending.len <= in_capsule_max || pending.is_connect() => Some(buf.clone()),
            _ => None,
        };
        let mut sqe = pending.sqe;
        sqe.cid = U16::new(u16::try_from(key).expect("a queue has few entries"));
        sqe.flags |= PSDT_SGL;
        sqe.dptr = match in_capsule {
            Some(_) => Sgl::in_capsule(0, pending.len),
            None => Sgl::transport(pending.len),
        };
        let len = pending.len as usize;
        let hlen = size_of::<CapsuleCmdHeader>() + digests.header_len();
        let mut flags = if digests.header { pdu_flags::HDGST } else { 0 };
        let (pdo, plen) = match in_capsule {
            Some(_) => {
                flags |= if digests.data { pdu_flags::DDGST } else { 0 };
                (hlen, hlen + len + digests.data_len())
            }
            None => (0, hlen),
        };
        let ch = common(PduType::CapsuleCmd, flags, pdo, plen);
        put_header(batch, CapsuleCmdHeader { ch, sqe }.as_bytes(), digests);
        if let Some(buf) = in_capsule {
            put_buf(batch, buf, 0, len, digests);
        }
    }

    /// Sends one H2CData PDU; the command is queued again when the R2T wants more.
    fn put_data(&mut self, batch: &mut Batch, key: u32) {
        let digests = self.framer.digests;
        let Some(pending) = self.pending.get_mut(key) else { return };
        let Some(buf) = &pending.from else { return };
        let left = pending.sending_end - pending.sending;
        let len = left.min(self.h2c_max);
        let hlen = size_of::<H2cDataHeader>() + digests.header_len();
        let mut flags = if digests.header { pdu_flags::HDGST } else { 0 };
        flags |= if digests.data { pdu_flags::DDGST } else { 0 };
        flags |= if len == left { pdu_flags::LAST } else { 0 };
        let plen = hlen + len as usize + digests.data_len();
        let mut header = H2cDataHeader::new_zeroed();
        header.ch = common(PduType::H2cData, flags, hlen, plen);
        header.cccid = U16::new(u16::try_from(key).expect("a queue has few entries"));
        header.ttag = U16::new(pending.ttag);
        header.datao = U32::new(pending.sending);
        header.datal = U32::new(len);
        put_header(batch, header.as_bytes(), digests);
        put_buf(batch, buf.clone(), pending.sending as usize, len as usize, digests);
        pending.sending += len;
        if pending.sending < pending.sending_end {
            self.outbox.push(Out::Data(key)).expect("its own place is free");
        }
    }
}

fn put(batch: &mut Batch, bytes: &[u8]) {
    assert!(batch.push_bytes(bytes), "room was checked");
}

fn put_header(batch: &mut Batch, header: &[u8], digests: Digests) {
    put(batch, header);
    if digests.header {
        put(batch, &crc32c(header).to_le_bytes());
    }
}

fn put_buf(batch: &mut Batch, buf: Buf, offset: usize, len: usize, digests: Digests) {
    let digest = digests.data.then(|| crc32c(&buf.bytes()[offset..offset + len]));
    batch.push_buf(buf, offset, len).expect("room was checked");
    if let Some(digest) = digest {
        put(batch, &digest.to_le_bytes());
    }
}
