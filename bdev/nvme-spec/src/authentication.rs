//! In-band authentication: its two Fabrics commands, and the messages that they carry.

use crate::{Sgl, U16, U32, layout};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Authentication Send and Authentication Receive: the same but for FCTYPE.
//= NVMe-Base 2.1 §6.2
//# SPSP0, SPSP1, SECP and the transfer length sit behind the SGL
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AuthenticationSqe {
    /// OPC: 7Fh.
    pub opcode: u8,
    /// PSDT in bits 7:6.
    pub flags: u8,
    /// CID.
    pub cid: U16,
    /// FCTYPE: 05h to send, 06h to receive.
    pub fctype: u8,
    /// Reserved.
    pub reserved5: [u8; 19],
    /// SGL1: the message.
    pub sgl1: Sgl,
    /// Reserved.
    pub reserved40: u8,
    /// SPSP0: 01h.
    pub spsp0: u8,
    /// SPSP1: 01h.
    pub spsp1: u8,
    /// SECP: security protocol, E9h.
    pub secp: u8,
    /// TL, or AL: bytes that are sent, or that there is room for.
    pub len: U32,
    /// Reserved.
    pub reserved48: [u8; 16],
}
layout!(AuthenticationSqe, 64, fctype = 4, sgl1 = 24, spsp0 = 41, secp = 43, len = 44);

/// SECP: the security protocol of NVMe.
pub const SECP_NVME: u8 = 0xe9;
/// SPSP0 and SPSP1: in-band authentication.
pub const SPSP_AUTHENTICATION: u8 = 0x01;

/// AUTH_TYPE: whose message it is.
//= NVMe-Base 2.1 §8.3.4
//# negotiation and failures are common, all others belong to their protocol
pub mod auth_type {
    /// Common to all protocols.
    pub const COMMON: u8 = 0x00;
    /// DH-HMAC-CHAP.
    pub const DH_HMAC_CHAP: u8 = 0x01;
}

/// AUTH_ID: which message it is.
//= NVMe-Base 2.1 §8.3.4
//# messages are told apart by AUTH_TYPE and AUTH_ID
pub mod auth_id {
    /// AUTH_Negotiate, to the controller.
    pub const NEGOTIATE: u8 = 0x00;
    /// DH-HMAC-CHAP_Challenge, to the host.
    pub const CHALLENGE: u8 = 0x01;
    /// DH-HMAC-CHAP_Reply, to the controller.
    pub const REPLY: u8 = 0x02;
    /// DH-HMAC-CHAP_Success1, to the host.
    pub const SUCCESS1: u8 = 0x03;
    /// DH-HMAC-CHAP_Success2, to the controller.
    pub const SUCCESS2: u8 = 0x04;
    /// AUTH_Failure2, to the controller.
    pub const FAILURE2: u8 = 0xf0;
    /// AUTH_Failure1, to the host.
    pub const FAILURE1: u8 = 0xf1;
}

/// Explanations of a failure; its reason code is always 01h.
//= NVMe-Base 2.1 §8.3.4
//# reason code explanations of AUTH_Failure1 and AUTH_Failure2
pub mod auth_failure {
    /// RESCODE: authentication failure.
    pub const REASON: u8 = 0x01;
    /// Authentication failed.
    pub const FAILED: u8 = 0x01;
    /// Authentication protocol not usable.
    pub const PROTOCOL_UNUSABLE: u8 = 0x02;
    /// Secure channel concatenation mismatch.
    pub const CONCATENATION_MISMATCH: u8 = 0x03;
    /// Hash function not usable.
    pub const HASH_UNUSABLE: u8 = 0x04;
    /// DH group not usable.
    pub const GROUP_UNUSABLE: u8 = 0x05;
    /// Incorrect payload.
    pub const INCORRECT_PAYLOAD: u8 = 0x06;
    /// Incorrect protocol message.
    pub const INCORRECT_MESSAGE: u8 = 0x07;
}

/// AUTHREQ in DW0 of the response to Connect.
//= NVMe-Base 2.1 §6.3
//# AUTHREQ tells whether the host has to authenticate
pub mod authreq {
    /// ATR: authentication is required.
    pub const ATR: u32 = 1 << 17;
    /// ASCR: authentication and a secure channel are required.
    pub const ASCR: u32 = 1 << 18;
}

/// Authentication protocol identifier of DH-HMAC-CHAP in a negotiation.
pub const AUTHID_DH_HMAC_CHAP: u8 = 0x01;
/// Identifiers of hash functions, and as many of groups, that a descriptor has room for.
pub const AUTH_IDS_MAX: usize = 30;
/// Bytes of the longest hash and so of the longest challenge and response.
pub const AUTH_HASH_MAX: usize = 64;
/// Bytes of the largest group's values.
pub const AUTH_DH_MAX: usize = 1024;

/// What all messages begin with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AuthHeader {
    /// AUTH_TYPE.
    pub auth_type: u8,
    /// AUTH_ID.
    pub auth_id: u8,
    /// Reserved.
    pub reserved2: U16,
    /// T_ID: chosen by the host, the same in all messages of a transaction.
    pub transaction: U16,
}
layout!(AuthHeader, 6, transaction = 4);

/// AUTH_Negotiate; `protocols` descriptors follow.
//= NVMe-Base 2.1 §8.3.4
//# AUTH_Negotiate offers protocols, hash functions and groups
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AuthNegotiate {
    /// AUTH_TYPE 00h, AUTH_ID 00h, T_ID.
    pub header: AuthHeader,
    /// SC_C: whether the exchange makes a key for a secure channel; 0 does not.
    pub secure_channel: u8,
    /// NAPD: number of protocol descriptors.
    pub protocols: u8,
}
layout!(AuthNegotiate, 8, secure_channel = 6, protocols = 7);

/// One authentication protocol that is offered.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AuthProtocol {
    /// AuthID: 01h is DH-HMAC-CHAP.
    pub auth_id: u8,
    /// Reserved.
    pub reserved1: u8,
    /// HALEN: hash functions that follow.
    pub hash_count: u8,
    /// DHLEN: groups that follow.
    pub group_count: u8,
    /// Identifiers of hash functions.
    pub hashes: [u8; AUTH_IDS_MAX],
    /// Identifiers of groups.
    pub groups: [u8; AUTH_IDS_MAX],
}
layout!(AuthProtocol, 64, hashes = 4, groups = 34);

/// DH-HMAC-CHAP_Challenge; the challenge and the DH value follow.
//= NVMe-Base 2.1 §8.3.4
//# the challenge names hash function, group, sequence number, and the lengths of what follows
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AuthChallenge {
    /// AUTH_TYPE 01h, AUTH_ID 01h, T_ID.
    pub header: AuthHeader,
    /// HL: bytes of the challenge, and of the hash.
    pub hash_len: u8,
    /// Reserved.
    pub reserved7: u8,
    /// HashID.
    pub hash: u8,
    /// DHgID.
    pub group: u8,
    /// DHVLEN: bytes of the DH value.
    pub dh_len: U16,
    /// SEQNUM: S1.
    pub sequence: U32,
}
layout!(AuthChallenge, 16, hash_len = 6, hash = 8, group = 9, dh_len = 10, sequence = 12);

/// DH-HMAC-CHAP_Reply; response, challenge and DH value follow.
//= NVMe-Base 2.1 §8.3.4
//# the reply carries the response, a challenge for the controller, and the DH value
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AuthReply {
    /// AUTH_TYPE 01h, AUTH_ID 02h, T_ID.
    pub header: AuthHeader,
    /// HL: bytes of response and challenge.
    pub hash_len: u8,
    /// Reserved.
    pub reserved7: u8,
    /// CVALID: the challenge is one, the controller shall authenticate itself.
    pub challenge_valid: u8,
    /// Reserved.
    pub reserved9: u8,
    /// DHVLEN: bytes of the DH value.
    pub dh_len: U16,
    /// SEQNUM: S2.
    pub sequence: U32,
}
layout!(AuthReply, 16, hash_len = 6, challenge_valid = 8, dh_len = 10, sequence = 12);

/// DH-HMAC-CHAP_Success1; the controller's response follows, zeroes when there is none.
//= NVMe-Base 2.1 §8.3.4
//# Success1 carries the controller's response when RVALID is set, and zeroes otherwise
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AuthSuccess1 {
    /// AUTH_TYPE 01h, AUTH_ID 03h, T_ID.
    pub header: AuthHeader,
    /// HL: bytes of the response.
    pub hash_len: u8,
    /// Reserved.
    pub reserved7: u8,
    /// RVALID: the response is one.
    pub response_valid: u8,
    /// Reserved.
    pub reserved9: [u8; 7],
}
layout!(AuthSuccess1, 16, hash_len = 6, response_valid = 8);

/// DH-HMAC-CHAP_Success2.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AuthSuccess2 {
    /// AUTH_TYPE 01h, AUTH_ID 04h, T_ID.
    pub header: AuthHeader,
    /// Reserved.
    pub reserved6: [u8; 10],
}
layout!(AuthSuccess2, 16);

/// AUTH_Failure1 and AUTH_Failure2.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AuthFailure {
    /// AUTH_TYPE 00h, AUTH_ID F1h or F0h, T_ID.
    pub header: AuthHeader,
    /// RESCODE: 01h.
    pub reason: u8,
    /// RESCODEEXP: one of [`auth_failure`].
    pub explanation: u8,
}
layout!(AuthFailure, 8, reason = 6, explanation = 7);
