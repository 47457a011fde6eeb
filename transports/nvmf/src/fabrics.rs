//! Fabrics commands: Connect, Property Get and Set, Disconnect.

use nvme_spec::opcode::fctype;
use nvme_spec::{
    CNTLID_DYNAMIC, ConnectData, ConnectSqe, DisconnectSqe, NvmeStatus, PropertyGetSqe,
    PropertySetSqe, Sqe, StatusCode, authreq, cattr,
};
use zerocopy::FromBytes;

use crate::auth;
use crate::command::{Plan, Transfer};
use crate::connection::{Connection, Cx, Queue};
use crate::controller::{Controller, Kind};
use crate::framer::narrow;
use crate::limits::QUEUE_ENTRIES_MAX;
use crate::registry::{Hold, Identity, JoinError, Standing};
use crate::state::{Input, State};
use crate::view::HostView;
use crate::{CloseReason, Event, HostId, Nqn, Refused, keep_alive};

const CONNECT_LEN: usize = size_of::<ConnectData>();

/// FCTYPE, the byte behind the CID.
fn fctype_of(sqe: &Sqe) -> u8 {
    sqe.nsid.get().to_le_bytes()[0]
}

/// What a Fabrics command needs, or why it is refused.
pub(crate) fn plan(sqe: &Sqe) -> Result<Plan, NvmeStatus> {
    match fctype_of(sqe) {
        fctype::CONNECT => Ok(Plan::admin(Transfer::FromHost(narrow(CONNECT_LEN)))),
        fctype::PROPERTY_GET | fctype::PROPERTY_SET | fctype::DISCONNECT => {
            Ok(Plan::admin(Transfer::None))
        }
        fctype::AUTHENTICATION_SEND | fctype::AUTHENTICATION_RECEIVE => auth::plan(sqe),
        _ => Err(NvmeStatus::never(StatusCode::INVALID_OPCODE)),
    }
}

/// Why a Connect is refused: the status, and where the parameter in error is.
struct Refusal {
    status: NvmeStatus,
    dw0: u32,
    cause: Refused,
}

impl Refusal {
    /// Invalid Parameters: at `offset` of the command.
    //= NVMe-Base 2.1 §6.3
    //# IPO and IATTR tell which parameter, and whether it is in the command or in the data
    fn sqe(offset: usize) -> Refusal {
        let status = NvmeStatus::never(StatusCode::CONNECT_INVALID_PARAMETERS);
        Refusal { status, dw0: narrow(offset), cause: Refused::Other }
    }

    /// Invalid Parameters: at `offset` of the data.
    fn data(offset: usize) -> Refusal {
        Refusal { dw0: narrow(offset) | 1 << 16, ..Refusal::sqe(0) }
    }

    fn of(status: NvmeStatus) -> Refusal {
        Refusal { status, dw0: 0, cause: Refused::Other }
    }

    /// Invalid Host.
    fn host(cause: Refused) -> Refusal {
        let status = NvmeStatus::never(StatusCode::CONNECT_INVALID_HOST);
        Refusal { status, dw0: 0, cause }
    }
}

const QID_AT: usize = std::mem::offset_of!(ConnectSqe, qid);
const SQSIZE_AT: usize = std::mem::offset_of!(ConnectSqe, sqsize);
const CNTLID_AT: usize = std::mem::offset_of!(ConnectData, cntlid);
const SUBNQN_AT: usize = std::mem::offset_of!(ConnectData, subnqn);
const HOSTNQN_AT: usize = std::mem::offset_of!(ConnectData, hostnqn);

impl Connection {
    pub(crate) fn execute_fabrics(&mut self, cx: Cx<'_>, key: u32) {
        let command = self.commands.get(key).expect("ready commands exist");
        let sqe = command.sqe;
        let sequence_error = NvmeStatus::never(StatusCode::COMMAND_SEQUENCE_ERROR);
        match (fctype_of(&sqe), self.state) {
            (fctype::CONNECT, State::AwaitConnect) => self.connect(cx, key),
            (_, State::AwaitConnect) | (fctype::CONNECT, _) => self.answer(key, sequence_error),
            (fctype::PROPERTY_GET, State::Admin) => {
                self.property_get(key, zerocopy::transmute!(sqe));
            }
            (fctype::PROPERTY_SET, State::Admin) => {
                self.property_set(key, zerocopy::transmute!(sqe));
            }
            (fctype::AUTHENTICATION_SEND, _) => self.authentication_send(cx, key),
            (fctype::AUTHENTICATION_RECEIVE, _) => self.authentication_receive(cx, key),
            (fctype::DISCONNECT, _) => self.disconnect(cx, key, zerocopy::transmute!(sqe)),
            _ => self.answer(key, NvmeStatus::never(StatusCode::INVALID_OPCODE)),
        }
    }

    fn connect(&mut self, cx: Cx<'_>, key: u32) {
        let command = self.commands.get(key).expect("ready commands exist");
        let sqe: ConnectSqe = zerocopy::transmute!(command.sqe);
        let data = ConnectData::read_from_prefix(command.bytes()).expect("1024 bytes came").0;
        match self.try_connect(cx, &sqe, &data) {
            Ok(hold) => {
                let flow_control = sqe.cattr & cattr::DISABLE_SQ_FLOW_CONTROL == 0;
                let command = self.commands.get_mut(key).expect("ready commands exist");
                command.sqhd_override = !flow_control;
                //= NVMe-Base 2.1 §6.3
                //# ATR is set when the host has to authenticate on this queue
                let pending = self.auth.standing == Standing::Pending;
                let required = if pending { authreq::ATR } else { 0 };
                let dw0 = u32::from(hold.cntlid()) | required;
                self.answer_with(key, NvmeStatus::SUCCESS, dw0, 0);
            }
            Err(refusal) => {
                let hostnqn = Nqn::from_field(&data.hostnqn);
                let subsystem = Nqn::from_field(&data.subnqn);
                let Refusal { status, cause, .. } = refusal;
                self.event(Event::Refused { hostnqn, subsystem, status, cause });
                self.answer_with(key, status, refusal.dw0, 0);
            }
        }
    }

    fn try_connect(
        &mut self,
        cx: Cx<'_>,
        sqe: &ConnectSqe,
        data: &ConnectData,
    ) -> Result<Hold, Refusal> {
        //= NVMe-Base 2.1 §6.3
        //# an unknown record format is refused as incompatible
        if sqe.recfmt.get() != 0 {
            let code = StatusCode::CONNECT_INCOMPATIBLE_FORMAT;
            return Err(Refusal::of(NvmeStatus::never(code)));
        }
        let hostnqn = Nqn::from_field(&data.hostnqn).ok_or(Refusal::data(HOSTNQN_AT))?;
        let subnqn = Nqn::from_field(&data.subnqn).ok_or(Refusal::data(SUBNQN_AT))?;
        //= NVMe-Base 2.1 §6.3
        //# SQSIZE is 0's based, not zero, and not beyond the controller's maximum
        let entries = sqe.sqsize.get().checked_add(1).ok_or(Refusal::sqe(SQSIZE_AT))?;
        if !(2..=QUEUE_ENTRIES_MAX).contains(&entries) {
            return Err(Refusal::sqe(SQSIZE_AT));
        }
        let discovery = self.snapshot.is_discovery(&subnqn);
        let subsystem = self.snapshot.subsystem(&subnqn).cloned();
        let standing = match &subsystem {
            None if discovery => Standing::Open,
            None => return Err(Refusal::data(SUBNQN_AT)),
            Some(view) if !view.hosts.allows(&hostnqn) => {
                return Err(Refusal::host(Refused::NotListed));
            }
            Some(view) => {
                let standing = self.snapshot.standing(view, &hostnqn);
                standing.ok_or(Refusal::host(Refused::NoKey))?
            }
        };
        let identity = Identity {
            subsystem: subsystem.as_ref().map(|view| view.nqn),
            hostnqn,
            hostid: HostId(data.hostid),
            peer: Some(self.addresses.peer),
            local: self.addresses.local,
            standing,
        };
        let hold = match sqe.qid.get() {
            0 => self.create_controller(cx, sqe, data, identity)?,
            qid => self.join_controller(qid, data.cntlid.get(), &identity)?,
        };
        let flow_control = sqe.cattr & cattr::DISABLE_SQ_FLOW_CONTROL == 0;
        let local = self.addresses.local;
        let view = |view| HostView::new(view, hostnqn, local, &self.snapshot);
        let subsystem = subsystem.map(view);
        let (sqhd, released) = (0, false);
        self.queue =
            Some(Queue { hold, entries, flow_control, sqhd, released, subsystem, hostnqn });
        self.auth.begin(standing, cx.now);
        if standing == Standing::Open {
            self.tell_connected();
        }
        Ok(hold)
    }

    fn create_controller(
        &mut self,
        cx: Cx<'_>,
        sqe: &ConnectSqe,
        data: &ConnectData,
        identity: Identity,
    ) -> Result<Hold, Refusal> {
        //= NVMe-Base 2.1 §6.3
        //# the dynamic controller model takes CNTLID FFFFh only
        if data.cntlid.get() != CNTLID_DYNAMIC {
            return Err(Refusal::data(CNTLID_AT));
        }
        let kind = if identity.subsystem.is_some() { Kind::Io } else { Kind::Discovery };
        let kato_ms = keep_alive::granted(sqe.kato.get()).map_err(Refusal::of)?;
        let busy = NvmeStatus::again(StatusCode::CONNECT_CONTROLLER_BUSY);
        let registry = self.target.registry();
        let hold = registry.create(identity, kato_ms, cx.now).ok_or(Refusal::of(busy))?;
        self.controller = Some(Controller::new(kind, identity, cx.now));
        self.enter(Input::ConnectAdmin);
        Ok(hold)
    }

    fn join_controller(
        &mut self,
        qid: u16,
        cntlid: u16,
        identity: &Identity,
    ) -> Result<Hold, Refusal> {
        let joined = self.target.registry().join(cntlid, qid, identity);
        let hold = joined.map_err(|error| match error {
            JoinError::NoController => Refusal::data(CNTLID_AT),
            JoinError::OtherSubsystem => Refusal::data(SUBNQN_AT),
            JoinError::OtherHost => Refusal::data(HOSTNQN_AT),
            JoinError::QidRange => Refusal::sqe(QID_AT),
            JoinError::NotEnabled | JoinError::QidTaken => {
                Refusal::of(NvmeStatus::never(StatusCode::COMMAND_SEQUENCE_ERROR))
            }
        })?;
        self.enter(Input::ConnectIo);
        Ok(hold)
    }

    fn property_get(&mut self, key: u32, sqe: PropertyGetSqe) {
        self.finish_ending();
        let controller = self.controller.as_ref().expect("an admin queue has its controller");
        match controller.property(sqe.offset.get(), sqe.attrib & 0x07) {
            Some(value) => {
                let bytes = value.to_le_bytes();
                let (low, high) = bytes.split_at(4);
                let dword = |b: &[u8]| u32::from_le_bytes(b.try_into().expect("four bytes"));
                self.answer_with(key, NvmeStatus::SUCCESS, dword(low), dword(high));
            }
            // Without DNR: nvme-cli walks all properties and stops at a status that has it.
            None => self.answer(key, NvmeStatus::again(StatusCode::INVALID_FIELD)),
        }
    }

    fn property_set(&mut self, key: u32, sqe: PropertySetSqe) {
        //= NVMe-Base 2.1 §6.6
        //# only CC can be written, as 4 bytes
        if sqe.offset.get() != nvme_spec::property::CC || sqe.attrib & 0x07 != 0 {
            return self.answer(key, NvmeStatus::never(StatusCode::INVALID_FIELD));
        }
        let value = u32::try_from(sqe.value.get() & 0xffff_ffff).expect("masked");
        self.set_cc(value);
        self.answer(key, NvmeStatus::SUCCESS);
    }

    //= NVMe-Base 2.1 §6.4
    //# Disconnect ends the queue it arrives on; the admin queue cannot be disconnected
    fn disconnect(&mut self, cx: Cx<'_>, key: u32, sqe: DisconnectSqe) {
        if self.state != State::Io {
            let code = StatusCode::DISCONNECT_INVALID_QUEUE_TYPE;
            return self.answer(key, NvmeStatus::never(code));
        }
        if sqe.recfmt.get() != 0 {
            let code = StatusCode::CONNECT_INCOMPATIBLE_FORMAT;
            return self.answer(key, NvmeStatus::never(code));
        }
        self.answer(key, NvmeStatus::SUCCESS);
        self.end(cx, CloseReason::Disconnected);
    }
}
