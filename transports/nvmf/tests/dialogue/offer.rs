//! What the target of a dialogue offers, and how it changes.

use nvmf::{
    AnaState, Authentication, Config, Group, Hash, HostKeys, Hosts, Namespace, NamespaceHandle,
    Nqn, Port, Reach, Referral,
};
use nvmf::{Secret, Subsystem, Target};

use super::Words;

pub(super) const SUBNQN: &str = "nqn.2026-11.io.example:vol";
const CLOSED_NQN: &str = "nqn.2026-11.io.example:closed";
/// A host with a secret: 32 bytes of 01h, used as they are, with SHA-256 and the null group.
const KEYED_NQN: &str = "nqn.2026-11.io.example:keyed";
/// A host without.
const KEYLESS_NQN: &str = "nqn.2026-11.io.example:keyless";
/// A subsystem for these two, if they have secrets.
const PROOF_NQN: &str = "nqn.2026-11.io.example:proof";
pub(super) const BLOCKS: u64 = 1024;

fn namespace(nsid: u32, blocks: u64) -> Namespace {
    let mut uuid = [0x5a; 16];
    uuid[15] = u8::try_from(nsid % 256).unwrap();
    let (handle, reach) = (NamespaceHandle(nsid), Reach::default());
    Namespace { nsid, handle, uuid, block_size: 4096, blocks, atomic_blocks: 1, reach }
}

fn nqn(name: &str) -> Nqn {
    Nqn::new(name).unwrap()
}

fn subsystem(name: &str, hosts: Hosts, namespaces: Vec<Namespace>) -> Subsystem {
    Subsystem { nqn: nqn(name), serial: "HF42".into(), hosts, namespaces }
}

/// What each dialogue begins with.
pub(super) fn initial() -> Config {
    let nobody = Hosts::List(vec![nqn("nqn.2026-11.io.example:nobody")]);
    let keys = HostKeys {
        host: nqn(KEYED_NQN),
        key: Secret::new(None, &[1; 32]).unwrap(),
        controller_key: Secret::new(None, &[2; 32]),
        hash: Some(Hash::Sha256),
        group: Some(Group::Null),
    };
    Config {
        ports: vec![Port { id: 7, address: "192.0.2.1:4420".parse().unwrap() }],
        subsystems: vec![
            subsystem(SUBNQN, Hosts::Any, vec![namespace(1, BLOCKS)]),
            subsystem(CLOSED_NQN, nobody, Vec::new()),
            subsystem(PROOF_NQN, Hosts::List(vec![nqn(KEYED_NQN), nqn(KEYLESS_NQN)]), Vec::new()),
        ],
        authentication: Authentication { hosts: vec![keys], required: vec![nqn(PROOF_NQN)] },
        ..Config::default()
    }
}

fn state(word: &str) -> AnaState {
    match word {
        "optimized" => AnaState::Optimized,
        "non-optimized" => AnaState::NonOptimized,
        "inaccessible" => AnaState::Inaccessible,
        "persistent-loss" => AnaState::PersistentLoss,
        "change" => AnaState::Change,
        _ => panic!("{word} is no state"),
    }
}

/// The hosts that bare words name: `any`, or those alone.
fn hosts(words: &Words) -> Hosts {
    match words.has("any") {
        true => Hosts::Any,
        false => Hosts::List(words.flags.iter().map(|name| nqn(name)).collect()),
    }
}

/// Changes what is offered, and tells the target; false when this is no such act.
pub(super) fn act(offer: &mut Config, target: &Target, verb: &str, words: &Words) -> bool {
    let found = |nsid: u64| {
        let nsid = u32::try_from(nsid).unwrap();
        move |namespace: &&mut Namespace| namespace.nsid == nsid
    };
    match verb {
        // `namespaces 1=BLOCKS 2=BLOCKS`: these and no others.
        "namespaces" => {
            let sizes = words.values.keys();
            let sizes =
                sizes.map(|nsid| namespace(nsid.parse().unwrap(), words.number(nsid).unwrap()));
            offer.subsystems[0].namespaces = sizes.collect();
        }
        // `attached nsid=1 HOST..`: to these hosts, or to `any`.
        "attached" => {
            let nsid = words.number("nsid").unwrap();
            let namespace = offer.subsystems[0].namespaces.iter_mut().find(found(nsid)).unwrap();
            namespace.reach.hosts = hosts(words);
        }
        // `ana nsid=1 state=inaccessible [port=7]`.
        "ana" => {
            let nsid = words.number("nsid").unwrap();
            let namespace = offer.subsystems[0].namespaces.iter_mut().find(found(nsid)).unwrap();
            let state = state(&words.values["state"]);
            match words.number("port") {
                None => namespace.reach.state = state,
                Some(port) => {
                    namespace.reach.ports = vec![(u16::try_from(port).unwrap(), state)];
                }
            }
        }
        // `allowed HOST..`: to the subsystem that is closed at first.
        "allowed" => offer.subsystems[1].hosts = hosts(words),
        // `subsystems 1000`: so many more, open to all.
        "subsystems" => {
            let count: u32 = words.flags[0].parse().unwrap();
            let name = |number| format!("{SUBNQN}-{number}");
            let more = (0..count).map(|number| subsystem(&name(number), Hosts::Any, Vec::new()));
            offer.subsystems.truncate(2);
            offer.subsystems.extend(more);
        }
        // `ports ADDRESS..`: numbered from 1.
        "ports" => {
            let address = |word: &String| word.parse().unwrap();
            let ports =
                (1..).zip(&words.flags).map(|(id, word)| Port { id, address: address(word) });
            offer.ports = ports.collect();
        }
        // `referral ADDRESS [nqn=NQN]`: one more.
        "referral" => {
            let nqn = words.values.get("nqn").map(|name| nqn(name));
            offer.referrals.push(Referral { address: words.flags[0].parse().unwrap(), nqn });
        }
        // `discovery-nqn NQN`: the unique name.
        "discovery-nqn" => offer.discovery_nqn = Some(nqn(&words.flags[0])),
        _ => return false,
    }
    target.replace(offer.clone()).unwrap();
    true
}
