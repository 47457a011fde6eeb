//! Identify data that describes a controller.

use crate::{NQN_FIELD_LEN, U16, U32, U64, layout};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// CNS values of the Identify command.
//= NVMe-Base 2.1 §5.1.13
//# the controller or namespace structure selector
pub mod cns {
    /// Identify Namespace, NVM command set.
    pub const NAMESPACE: u8 = 0x00;
    /// Identify Controller.
    pub const CONTROLLER: u8 = 0x01;
    /// Active namespace ID list.
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    /// Namespace identification descriptor list.
    pub const NAMESPACE_DESCRIPTORS: u8 = 0x03;
    /// Identify Namespace of an I/O command set.
    pub const NAMESPACE_CSI: u8 = 0x05;
    /// Identify Controller of an I/O command set.
    pub const CONTROLLER_CSI: u8 = 0x06;
    /// Active namespace ID list of an I/O command set.
    pub const ACTIVE_NAMESPACES_CSI: u8 = 0x07;
    /// I/O command set independent Identify Namespace.
    pub const NAMESPACE_INDEPENDENT: u8 = 0x08;
    /// I/O command set list.
    pub const COMMAND_SETS: u8 = 0x1c;
}

/// CSI: command set identifiers.
pub mod csi {
    /// The NVM command set.
    pub const NVM: u8 = 0x00;
}

/// CNTRLTYPE values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ControllerType {
    /// 1h: I/O controller.
    Io = 1,
    /// 2h: discovery controller.
    Discovery = 2,
    /// 3h: administrative controller.
    Administrative = 3,
}

/// DCTYPE values.
pub mod discovery_controller_type {
    /// 1h: direct discovery controller.
    pub const DIRECT: u8 = 1;
    /// 2h: central discovery controller.
    pub const CENTRAL: u8 = 2;
}

/// Bits of OAES (and of the Asynchronous Event Configuration feature).
pub mod oaes {
    /// Attached Namespace Attribute notices.
    pub const NAMESPACE_ATTRIBUTE: u32 = 1 << 8;
    /// Asymmetric Namespace Access change notices.
    pub const ANA_CHANGE: u32 = 1 << 11;
    /// Cross-Controller Reset Completed notices.
    pub const CROSS_RESET_COMPLETED: u32 = 1 << 20;
    /// Discovery log page change notification.
    pub const DISCOVERY_CHANGE: u32 = 1 << 31;
}

/// Bits of CTRATT.
pub mod ctratt {
    /// HIDS: a 128-bit host identifier is supported.
    pub const HOST_ID_128: u32 = 1;
    /// TBKAS: traffic based keep alive.
    pub const TRAFFIC_KEEP_ALIVE: u32 = 1 << 6;
    /// ELBAS: extended LBA formats.
    pub const EXTENDED_LBA_FORMATS: u32 = 1 << 15;
}

/// Bits of OACS.
pub mod oacs {
    /// Namespace management.
    pub const NAMESPACE_MANAGEMENT: u16 = 1 << 3;
}

/// Bits of LPA.
pub mod lpa {
    /// SMART log page per namespace.
    pub const SMART_PER_NAMESPACE: u8 = 1;
    /// Commands Supported and Effects log page.
    pub const EFFECTS: u8 = 1 << 1;
    /// Extended data for Get Log Page: 32-bit NUMD and offsets.
    pub const EXTENDED_DATA: u8 = 1 << 2;
    /// MLPS: Supported Log Pages, feature effects and scope information.
    pub const MISCELLANEOUS: u8 = 1 << 5;
}

/// FUSES: fused operations that are supported.
pub mod fuses {
    /// Compare and Write.
    pub const COMPARE_AND_WRITE: u16 = 1;
}

/// Bits of ONCS.
pub mod oncs {
    /// Compare.
    pub const COMPARE: u16 = 1;
    /// Write Uncorrectable.
    pub const WRITE_UNCORRECTABLE: u16 = 1 << 1;
    /// Dataset Management.
    pub const DATASET_MANAGEMENT: u16 = 1 << 2;
    /// Write Zeroes.
    pub const WRITE_ZEROES: u16 = 1 << 3;
    /// Save and Select fields of the features commands.
    pub const SAVE_SELECT: u16 = 1 << 4;
    /// Reservations.
    pub const RESERVATIONS: u16 = 1 << 5;
    /// Timestamp feature.
    pub const TIMESTAMP: u16 = 1 << 6;
    /// Verify.
    pub const VERIFY: u16 = 1 << 7;
    /// Copy.
    pub const COPY: u16 = 1 << 8;
    /// NSZ of Write Zeroes: the whole namespace.
    pub const NAMESPACE_ZEROES: u16 = 1 << 12;
}

/// Bits of SGLS.
pub mod sgls {
    /// SGLs are supported, without alignment requirement.
    pub const SUPPORTED: u32 = 1;
    /// The address of a data block may be an offset into the capsule.
    pub const OFFSET: u32 = 1 << 20;
    /// Transport SGL data block descriptors.
    pub const TRANSPORT: u32 = 1 << 21;
}

/// Identify Controller (CNS 01h), 4096 bytes.
//= NVMe-Base 2.1 §5.1.13.2.1
//# fields in the specification's order; what the house does not use is in reserved lumps
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IdentifyController {
    /// VID: PCI vendor ID.
    pub vid: U16,
    /// SSVID: PCI subsystem vendor ID.
    pub ssvid: U16,
    /// SN: serial number, ASCII, space padded.
    pub sn: [u8; 20],
    /// MN: model number, ASCII, space padded.
    pub mn: [u8; 40],
    /// FR: firmware revision, ASCII, space padded.
    pub fr: [u8; 8],
    /// RAB: recommended arbitration burst.
    pub rab: u8,
    /// IEEE: OUI.
    pub ieee: [u8; 3],
    /// CMIC: multi-path and sharing.
    pub cmic: u8,
    /// MDTS: maximum data transfer size, power of two of the minimum page.
    pub mdts: u8,
    /// CNTLID: controller identifier.
    pub cntlid: U16,
    /// VER: version, as property VS.
    pub ver: U32,
    /// RTD3R: resume latency, microseconds.
    pub rtd3r: U32,
    /// RTD3E: entry latency, microseconds.
    pub rtd3e: U32,
    /// OAES: optional asynchronous events.
    pub oaes: U32,
    /// CTRATT: controller attributes.
    pub ctratt: U32,
    /// RRLS: read recovery levels.
    pub rrls: U16,
    /// BPCAP: boot partition capabilities.
    pub bpcap: u8,
    /// Reserved.
    pub reserved103: u8,
    /// NSSL: NVM subsystem shutdown latency, microseconds.
    pub nssl: U32,
    /// Reserved.
    pub reserved108: [u8; 2],
    /// PLSI: power loss signaling.
    pub plsi: u8,
    /// CNTRLTYPE: one of [`ControllerType`].
    pub cntrltype: u8,
    /// FGUID: FRU globally unique identifier.
    pub fguid: [u8; 16],
    /// CRDT1: command retry delay time 1, units of 100 ms.
    pub crdt1: U16,
    /// CRDT2: command retry delay time 2.
    pub crdt2: U16,
    /// CRDT3: command retry delay time 3.
    pub crdt3: U16,
    /// CRCAP: controller reachability capabilities.
    pub crcap: u8,
    /// CIU: controller instance uniquifier: never zero, another one for each instance of a CNTLID.
    pub ciu: u8,
    /// CIRN: controller instance random number.
    pub cirn: U64,
    /// Reserved.
    pub reserved144: [u8; 96],
    /// Reserved for NVMe-MI, then NVMSR, VWCI and MEC.
    pub management: [u8; 16],
    /// OACS: optional admin commands.
    pub oacs: U16,
    /// ACL: abort command limit, 0's based.
    pub acl: u8,
    /// AERL: asynchronous event request limit, 0's based.
    pub aerl: u8,
    /// FRMW: firmware updates.
    pub frmw: u8,
    /// LPA: log page attributes.
    pub lpa: u8,
    /// ELPE: error log page entries, 0's based.
    pub elpe: u8,
    /// NPSS: number of power states, 0's based.
    pub npss: u8,
    /// AVSCC: admin vendor specific command configuration.
    pub avscc: u8,
    /// APSTA: autonomous power state transitions.
    pub apsta: u8,
    /// WCTEMP: warning temperature threshold, kelvin.
    pub wctemp: U16,
    /// CCTEMP: critical temperature threshold, kelvin.
    pub cctemp: U16,
    /// MTFA: maximum time for firmware activation.
    pub mtfa: U16,
    /// HMPRE: host memory buffer preferred size.
    pub hmpre: U32,
    /// HMMIN: host memory buffer minimum size.
    pub hmmin: U32,
    /// TNVMCAP: total NVM capacity, bytes.
    pub tnvmcap: [u8; 16],
    /// UNVMCAP: unallocated NVM capacity, bytes.
    pub unvmcap: [u8; 16],
    /// RPMBS: replay protected memory block.
    pub rpmbs: U32,
    /// EDSTT: extended device self-test time.
    pub edstt: U16,
    /// DSTO: device self-test options.
    pub dsto: u8,
    /// FWUG: firmware update granularity.
    pub fwug: u8,
    /// KAS: keep alive granularity, units of 100 ms; 0 is no keep alive.
    pub kas: U16,
    /// HCTMA: host controlled thermal management.
    pub hctma: U16,
    /// MNTMT: minimum thermal management temperature.
    pub mntmt: U16,
    /// MXTMT: maximum thermal management temperature.
    pub mxtmt: U16,
    /// SANICAP: sanitize capabilities.
    pub sanicap: U32,
    /// HMMINDS: host memory buffer minimum descriptor size.
    pub hmminds: U32,
    /// HMMAXD: host memory buffer maximum descriptors.
    pub hmmaxd: U16,
    /// NSETIDMAX: NVM set identifier maximum.
    pub nsetidmax: U16,
    /// ENDGIDMAX: endurance group identifier maximum.
    pub endgidmax: U16,
    /// ANATT: ANA transition time, seconds.
    pub anatt: u8,
    /// ANACAP: ANA capabilities.
    pub anacap: u8,
    /// ANAGRPMAX: ANA group identifier maximum.
    pub anagrpmax: U32,
    /// NANAGRPID: number of ANA groups.
    pub nanagrpid: U32,
    /// PELS: persistent event log size.
    pub pels: U32,
    /// Domain, key per I/O, firmware reset time, Max Endurance Group capacity, temperature.
    pub reserved356: [u8; 30],
    /// CQT: command quiesce time, milliseconds.
    pub cqt: U16,
    /// Reserved.
    pub reserved388: [u8; 124],
    /// SQES: submission queue entry sizes, powers of two: maximum 7:4, minimum 3:0.
    pub sqes: u8,
    /// CQES: completion queue entry sizes.
    pub cqes: u8,
    /// MAXCMD: maximum outstanding commands of a queue.
    pub maxcmd: U16,
    /// NN: the largest valid NSID.
    pub nn: U32,
    /// ONCS: optional NVM commands.
    pub oncs: U16,
    /// FUSES: fused operations.
    pub fuses: U16,
    /// FNA: format NVM attributes.
    pub fna: u8,
    /// VWC: volatile write cache; bits 2:1 flush behavior with NSID FFFFFFFFh.
    pub vwc: u8,
    /// AWUN: atomic write unit normal, logical blocks, 0's based.
    pub awun: U16,
    /// AWUPF: atomic write unit power fail.
    pub awupf: U16,
    /// ICSVSCC: I/O command set vendor specific command configuration.
    pub icsvscc: u8,
    /// NWPC: namespace write protection capabilities.
    pub nwpc: u8,
    /// ACWU: atomic compare and write unit.
    pub acwu: U16,
    /// CDFS: copy descriptor formats supported.
    pub cdfs: U16,
    /// SGLS: SGL support, bits in [`sgls`].
    pub sgls: U32,
    /// MNAN: maximum number of allowed namespaces.
    pub mnan: U32,
    /// MAXDNA: maximum domain namespace attachments.
    pub maxdna: [u8; 16],
    /// MAXCNA: maximum I/O controller namespace attachments.
    pub maxcna: U32,
    /// OAQD and the migration fields.
    pub reserved564: [u8; 204],
    /// SUBNQN: the NVM subsystem's NQN, NUL-terminated.
    pub subnqn: [u8; NQN_FIELD_LEN],
    /// Reserved.
    pub reserved1024: [u8; 768],
    /// IOCCSZ: I/O command capsule size, units of 16 bytes.
    pub ioccsz: U32,
    /// IORCSZ: I/O response capsule size, units of 16 bytes.
    pub iorcsz: U32,
    /// ICDOFF: in-capsule data offset, units of 16 bytes.
    pub icdoff: U16,
    /// FCATT: Fabrics controller attributes; bit 0 clear is the dynamic controller model.
    pub fcatt: u8,
    /// MSDBD: maximum SGL data block descriptors.
    pub msdbd: u8,
    /// OFCS: optional Fabrics commands; bit 0 Disconnect.
    pub ofcs: U16,
    /// DCTYPE: discovery controller type.
    pub dctype: u8,
    /// CCRL: cross-controller resets that may be in progress at once.
    pub ccrl: u8,
    /// Reserved.
    pub reserved1808: [u8; 240],
    /// PSD: power state descriptors.
    pub psd: [PowerState; 32],
    /// VS: vendor specific.
    pub vendor: [u8; 1024],
}
layout!(
    IdentifyController,
    4096,
    cmic = 76,
    cntlid = 78,
    oaes = 92,
    nssl = 104,
    cntrltype = 111,
    crcap = 134,
    ciu = 135,
    cirn = 136,
    management = 240,
    oacs = 256,
    wctemp = 266,
    rpmbs = 312,
    kas = 320,
    sanicap = 328,
    anatt = 342,
    nanagrpid = 348,
    cqt = 386,
    sqes = 512,
    nn = 516,
    vwc = 525,
    nwpc = 531,
    sgls = 536,
    maxcna = 560,
    subnqn = 768,
    ioccsz = 1792,
    icdoff = 1800,
    ofcs = 1804,
    dctype = 1806,
    ccrl = 1807,
    psd = 2048,
    vendor = 3072,
);

/// A power state descriptor, 32 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PowerState {
    /// MP: maximum power, hundredths of a watt unless MXPS.
    pub mp: U16,
    /// Reserved.
    pub reserved2: u8,
    /// MXPS and NOPS.
    pub flags: u8,
    /// ENLAT: entry latency, microseconds.
    pub enlat: U32,
    /// EXLAT: exit latency, microseconds.
    pub exlat: U32,
    /// RRT, RRL, RWT, RWL, idle and active power.
    pub rest: [u8; 20],
}
layout!(PowerState, 32, enlat = 4, rest = 12);

/// Identify Controller of the NVM command set (CNS 06h, CSI 00h), 4096 bytes.
//= NVMe-NVM 1.1 §4.1.5.2
//# size limits of commands that transfer nothing or little
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IdentifyControllerNvm {
    /// VSL: verify size limit, power of two of the minimum page.
    pub vsl: u8,
    /// WZSL: write zeroes size limit.
    pub wzsl: u8,
    /// WUSL: write uncorrectable size limit.
    pub wusl: u8,
    /// DMRL: dataset management ranges limit.
    pub dmrl: u8,
    /// DMRSL: dataset management range size limit, logical blocks.
    pub dmrsl: U32,
    /// DMSL: dataset management size limit, logical blocks.
    pub dmsl: U64,
    /// Reserved; key per I/O, copy and queue-count fields of later revisions.
    pub reserved16: [u8; 4080],
}
layout!(IdentifyControllerNvm, 4096, dmrsl = 4, dmsl = 8);
