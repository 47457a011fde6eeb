//! What a host receives: responses, data and R2Ts.

use bdev::{Completion, Data, Status};
use nvme_spec::{
    C2hDataHeader, CapsuleRespHeader, Cqe, IcResp, NvmeStatus, PduType, R2tHeader, StatusCode,
    TermReqHeader, U16, authreq, digest_flags, pdu_flags,
};

use super::mapping::block_status;
use super::queue::{Failure, HostResponse, Initiator, Out, Pending, State};
use crate::framer::{Accepts, Head, narrow};
use crate::limits::TRANSFER_MAX;
use zerocopy::FromZeros;

/// What a host accepts from a target.
pub(super) const ACCEPTS: Accepts = Accepts {
    data_max: |pdu_type| match pdu_type {
        PduType::IcResp | PduType::CapsuleResp | PduType::R2t => Some(0),
        PduType::C2hData => Some(TRANSFER_MAX),
        PduType::C2hTermReq => Some(128),
        _ => None,
    },
};

impl Initiator {
    pub(super) fn advance(&mut self) -> Result<(), Failure> {
        loop {
            if self.framer.data_remaining().is_some() {
                if !self.drain()? {
                    return Ok(());
                }
                continue;
            }
            match self.framer.head() {
                Ok(None) => return Ok(()),
                Ok(Some(head)) => self.on_head(head)?,
                Err(_) => return Err(Failure::Protocol("a header that makes no sense")),
            }
        }
    }

    fn on_head(&mut self, head: Head) -> Result<(), Failure> {
        match (head.pdu_type, self.state) {
            (PduType::IcResp, State::AwaitIcResp) => self.on_ic_resp(head),
            (PduType::C2hTermReq, _) => {
                let term: TermReqHeader = self.framer.read();
                Err(Failure::Terminated(term.fes.get(), term.fei.get()))
            }
            (_, State::AwaitIcResp) => Err(Failure::Protocol("something before ICResp")),
            (PduType::CapsuleResp, _) => {
                let resp: CapsuleRespHeader = self.framer.read();
                self.framer.consume(head);
                self.on_response(resp.cqe)
            }
            (PduType::C2hData, _) => self.on_c2h_data(head),
            (PduType::R2t, _) => self.on_r2t(head),
            _ => Err(Failure::Protocol("a PDU out of place")),
        }
    }

    fn on_ic_resp(&mut self, head: Head) -> Result<(), Failure> {
        let resp: IcResp = self.framer.read();
        self.framer.consume(head);
        let asked = self.options.digests;
        let header = resp.dgst & digest_flags::HEADER != 0;
        let data = resp.dgst & digest_flags::DATA != 0;
        let h2c_max = resp.maxh2cdata.get();
        let sane = h2c_max >= 4096 && h2c_max.is_multiple_of(4);
        if resp.pfv.get() != 0
            || resp.cpda != 0
            || !sane
            || (header, data) != (asked.header, asked.data)
        {
            return Err(Failure::Protocol("ICResp with values that were not asked for"));
        }
        self.framer.digests = asked;
        self.h2c_max = h2c_max;
        self.state = State::AwaitConnect;
        self.outbox.push(Out::Command(self.connect_key)).expect("the outbox is empty");
        Ok(())
    }

    fn on_response(&mut self, cqe: Cqe) -> Result<(), Failure> {
        let unknown = Failure::Protocol("a response to nothing");
        let pending = self.pending.remove(u32::from(cqe.cid.get())).ok_or(unknown)?;
        if self.state == State::AwaitConnect {
            let (status, dw0) = (cqe.nvme_status(), cqe.dw0.get());
            if !status.is_success() {
                return Err(Failure::Refused { status, dw0 });
            }
            self.cntlid = u16::try_from(dw0 & 0xffff).expect("masked");
            if dw0 & (authreq::ATR | authreq::ASCR) == 0 {
                self.state = State::Ready;
                return Ok(());
            }
            self.state = State::Authenticating;
            return self.begin_exchange();
        }
        self.complete(pending, cqe)
    }

    fn complete(&mut self, pending: Pending, cqe: Cqe) -> Result<(), Failure> {
        if pending.authentication {
            return self.on_authentication(pending, &cqe);
        }
        self.finish(pending, cqe);
        Ok(())
    }

    pub(super) fn finish(&mut self, mut pending: Pending, mut cqe: Cqe) {
        if pending.corrupt {
            let status = NvmeStatus::again(StatusCode::TRANSIENT_TRANSPORT_ERROR);
            cqe.status = U16::new(status.to_field());
        }
        let data = match (pending.into.take(), pending.from.take()) {
            (Some(buf), _) => Data::Into(buf),
            (_, Some(buf)) => Data::From(buf),
            _ => Data::None,
        };
        let (tag, received) = (pending.tag, pending.received);
        if pending.block {
            let mut status = block_status(cqe.nvme_status());
            if status.is_ok() && matches!(data, Data::Into(_)) && received != pending.len {
                status = Status::Io;
            }
            let completion = Completion { tag, data, status };
            self.done_blocks.push(completion).expect("one place per command");
        } else {
            let response = HostResponse { tag, cqe, data, received };
            self.done.push(response).expect("one place per command");
        }
    }

    fn on_c2h_data(&mut self, head: Head) -> Result<(), Failure> {
        let pdu: C2hDataHeader = self.framer.read();
        let key = u32::from(pdu.cccid.get());
        let Some(pending) = self.pending.get(key) else {
            return Err(Failure::Protocol("data for nothing"));
        };
        let fits = pdu.datal.get() == head.data_len
            && pdu.datao.get() == pending.received
            && pending.into.is_some()
            && head.data_len <= pending.len - pending.received;
        let last = head.flags & pdu_flags::LAST != 0;
        if !fits || (head.flags & pdu_flags::SUCCESS != 0 && !last) {
            return Err(Failure::Protocol("data that was not asked for"));
        }
        if head.flags & pdu_flags::SUCCESS != 0 && !self.options.disable_flow_control {
            return Err(Failure::Protocol("SUCCESS with SQ flow control"));
        }
        self.framer.consume(head);
        self.current = Some(key);
        let pending = self.pending.get_mut(key).expect("just seen");
        pending.ends = head.flags & pdu_flags::SUCCESS != 0;
        Ok(())
    }

    fn drain(&mut self) -> Result<bool, Failure> {
        let Some(key) = self.current else {
            self.framer.skip_data(u32::MAX);
            return Ok(self.framer.finish_data().is_some());
        };
        let pending = self.pending.get_mut(key).expect("its data is arriving");
        let Some(buf) = &mut pending.into else { return Ok(false) };
        let (start, end) = (pending.received as usize, pending.len as usize);
        pending.received += narrow(self.framer.take_data(&mut buf.bytes_mut()[start..end]));
        let Some(intact) = self.framer.finish_data() else { return Ok(false) };
        self.current = None;
        pending.corrupt |= !intact;
        if pending.ends {
            let pending = self.pending.remove(key).expect("just seen");
            self.complete(pending, Cqe::new_zeroed())?;
        }
        Ok(true)
    }

    fn on_r2t(&mut self, head: Head) -> Result<(), Failure> {
        let r2t: R2tHeader = self.framer.read();
        let key = u32::from(r2t.cccid.get());
        let Some(pending) = self.pending.get_mut(key) else {
            return Err(Failure::Protocol("R2T for nothing"));
        };
        let (offset, len) = (r2t.r2to.get(), r2t.r2tl.get());
        let end = offset.checked_add(len).filter(|&end| end <= pending.len);
        let (Some(end), true) = (end, len > 0 && pending.from.is_some()) else {
            return Err(Failure::Protocol("R2T beyond the data"));
        };
        if offset < pending.sending_end || pending.sending < pending.sending_end {
            return Err(Failure::Protocol("R2T out of order"));
        }
        pending.ttag = r2t.ttag.get();
        (pending.sending, pending.sending_end) = (offset, end);
        self.framer.consume(head);
        self.outbox.push(Out::Data(key)).expect("one R2T per command");
        Ok(())
    }
}
