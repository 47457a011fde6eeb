//! NVMe structures as bytes, no behaviour; shared by the driver and the target.
//!
//! Everything that crosses an NVMe wire or sits in an NVMe queue has its type here: submission and
//! completion entries, Fabrics commands, controller properties, Identify data, log pages, feature
//! values, the discovery log and the NVMe/TCP PDU headers. Each structure has the field order of
//! its specification, the spec's field name at the start of each field's documentation, and asserts
//! of size and offset, so that a structure that compiles is a structure that fits the wire.
//!
//! What this crate is not: it takes no decision. It does not know which command is legal in which
//! state, which values a controller reports, or how a digest is computed. That is `nvmf` (the
//! target and the initiator) and, later, the user-space driver.
//!
//! All integers are little-endian wrappers without alignment ([`U16`], [`U32`], [`U64`]); every
//! structure derives zerocopy's traits, so a checked view of received bytes costs nothing:
//!
//! ```
//! use nvme_spec::{Sqe, opcode};
//! use zerocopy::{FromBytes, FromZeros, IntoBytes};
//!
//! let mut sqe = Sqe::new_zeroed();
//! sqe.opcode = opcode::nvm::READ;
//! sqe.cid.set(7);
//! sqe.set_slba(0x1_0000_0001);
//! let bytes = sqe.as_bytes();
//! assert_eq!(bytes.len(), 64);
//! let (view, _) = Sqe::ref_from_prefix(bytes).expect("64 bytes are there");
//! assert_eq!(view.slba(), 0x1_0000_0001);
//! ```
//!
//! Spec documents cited: `NVMe-Base 2.1`, `NVMe-NVM 1.1` (the NVM command set), `NVMe-TCP 1.1`.
//! The sections that we claim are listed in `docs/spec/`.

#![forbid(unsafe_code)]

mod authentication;
mod command;
mod discovery;
mod fabrics;
pub mod feature;
mod identify;
mod log;
mod namespace;
pub mod opcode;
mod pdu;
pub mod property;
pub mod reservation;
mod sgl;
mod status;

pub use authentication::{
    AUTH_DH_MAX, AUTH_HASH_MAX, AUTH_IDS_MAX, AUTHID_DH_HMAC_CHAP, AuthChallenge, AuthFailure,
    AuthHeader, AuthNegotiate, AuthProtocol, AuthReply, AuthSuccess1, AuthSuccess2,
    AuthenticationSqe, SECP_NVME, SPSP_AUTHENTICATION, auth_failure, auth_id, auth_type, authreq,
};
pub use command::{CopyRange, Cqe, DsmRange, PSDT_SGL, Sqe, fuse, io_control};
pub use discovery::{
    DISCOVERY_NQN, DiscoveryHeader, DiscoveryRecord, adrfam, discovery_eflags, discovery_subtype,
    discovery_treq, trtype,
};
pub use fabrics::{
    CNTLID_DYNAMIC, CNTLID_MAX, CNTLID_STATIC_ANY, ConnectData, ConnectSqe, DisconnectSqe,
    NQN_FIELD_LEN, NQN_LEN_MAX, PropertyGetSqe, PropertySetSqe, cattr,
};
pub use identify::{
    ControllerType, IdentifyController, IdentifyControllerNvm, PowerState, cns, csi, ctratt,
    discovery_controller_type, fuses, lpa, oacs, oaes, oncs, sgls,
};
pub use log::{
    AnaGroupDescriptor, AnaHeader, ChangedNamespaces, CrossResetEntry, CrossResetHeader,
    EffectsLog, ErrorEntry, FidEffectsLog, FirmwareSlots, SmartLog, SupportedLogPages, ana_state,
    cross_reset_flags, cross_reset_status, effects, fid_effects, lid,
};
pub use namespace::{
    IdentifyNamespace, IdentifyNamespaceIndependent, IdentifyNamespaceNvm, LbaFormat,
    NamespaceDescriptorHeader, NamespaceList, dlfeat, nidt, nsfeat,
};
pub use pdu::{
    C2hDataHeader, CapsuleCmdHeader, CapsuleRespHeader, CommonHeader, DIGEST_LEN, FatalError,
    H2cDataHeader, IcReq, IcResp, PDO_DWORDS_MAX, PduType, R2tHeader, TERM_DATA_MAX, TermReqHeader,
    digest_flags, pdu_flags,
};
pub use sgl::{Sgl, sgl_type};
pub use status::{NvmeStatus, StatusCode};
pub use zerocopy::little_endian::{U16, U32, U64};

/// Asserts the size of a wire structure and the offsets of some of its fields.
macro_rules! layout {
    ($name:ident, $size:expr $(, $field:ident = $offset:expr)* $(,)?) => {
        const _: () = assert!(core::mem::size_of::<$name>() == $size);
        const _: () = assert!(core::mem::align_of::<$name>() == 1);
        $(const _: () = assert!(core::mem::offset_of!($name, $field) == $offset);)*
    };
}
pub(crate) use layout;
