//! The hashes of DH-HMAC-CHAP.

use hmac::{Hmac, KeyInit, Mac};
use nvme_spec::AUTH_HASH_MAX;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use zeroize::Zeroize;

use super::keys::{Hash, Secret};
use crate::Nqn;

/// A hash, wiped when it is dropped.
pub(crate) struct Digest {
    bytes: [u8; AUTH_HASH_MAX],
    len: usize,
}

impl Digest {
    fn of(hash: &[u8]) -> Digest {
        let mut bytes = [0; AUTH_HASH_MAX];
        bytes[..hash.len()].copy_from_slice(hash);
        Digest { bytes, len: hash.len() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Digest {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

fn mac_with<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Digest {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    Digest::of(&mac.finalize().into_bytes())
}

/// HMAC over the parts, one behind the other.
fn mac(hash: Hash, key: &[u8], parts: &[&[u8]]) -> Digest {
    match hash {
        Hash::Sha256 => mac_with::<Hmac<Sha256>>(key, parts),
        Hash::Sha384 => mac_with::<Hmac<Sha384>>(key, parts),
        Hash::Sha512 => mac_with::<Hmac<Sha512>>(key, parts),
    }
}

fn digest(hash: Hash, bytes: &[u8]) -> Digest {
    match hash {
        Hash::Sha256 => Digest::of(&Sha256::digest(bytes)),
        Hash::Sha384 => Digest::of(&Sha384::digest(bytes)),
        Hash::Sha512 => Digest::of(&Sha512::digest(bytes)),
    }
}

/// Calls `act` with a secret as its owner uses it: bound to the owner's name, if it says so.
//= NVMe-Base 2.1 §8.3.4
//# a secret with a transformation is used as HMAC(secret, NQN || "NVMe-over-Fabrics")
fn with_key<T>(secret: &Secret, owner: &Nqn, act: impl FnOnce(&[u8]) -> T) -> T {
    match secret.transform() {
        None => act(secret.key()),
        Some(hash) => {
            let parts: [&[u8]; 2] = [owner.as_str().as_bytes(), b"NVMe-over-Fabrics"];
            act(mac(hash, secret.key(), &parts).bytes())
        }
    }
}

/// What is hashed besides the secret.
pub(crate) struct Question<'a> {
    pub(crate) hash: Hash,
    pub(crate) challenge: &'a [u8],
    /// What both sides know by Diffie-Hellman; `None` in the null group.
    pub(crate) shared: Option<&'a [u8]>,
    pub(crate) sequence: u32,
    pub(crate) transaction: u16,
    pub(crate) host: &'a Nqn,
    pub(crate) subsystem: &'a Nqn,
}

impl Question<'_> {
    /// The challenge, or what Diffie-Hellman makes of it.
    //= NVMe-Base 2.1 §8.3.4
    //# the augmented challenge is HMAC(H(shared value), challenge)
    fn augmented(&self) -> Digest {
        match self.shared {
            None => Digest::of(self.challenge),
            Some(shared) => {
                let key = digest(self.hash, shared);
                mac(self.hash, key.bytes(), &[self.challenge])
            }
        }
    }

    fn answer(&self, key: &[u8], role: &[u8], first: &Nqn, second: &Nqn) -> Digest {
        let challenge = self.augmented();
        let sequence = self.sequence.to_le_bytes();
        let transaction = self.transaction.to_le_bytes();
        // No exchange here makes a key for a secure channel.
        let secure_channel = [0];
        let (first, second) = (first.as_str().as_bytes(), second.as_str().as_bytes());
        let parts: [&[u8]; 8] = [
            challenge.bytes(),
            &sequence,
            &transaction,
            &secure_channel,
            role,
            first,
            &[0],
            second,
        ];
        mac(self.hash, key, &parts)
    }

    /// The response of the host.
    //= NVMe-Base 2.1 §8.3.4
    //# HMAC(Kh, Ca || S || T_ID || SC_C || "HostHost" || NQNh || 00h || NQNc)
    pub(crate) fn host_response(&self, secret: &Secret) -> Digest {
        let answer = |key: &[u8]| self.answer(key, b"HostHost", self.host, self.subsystem);
        with_key(secret, self.host, answer)
    }

    /// The response of the controller.
    //= NVMe-Base 2.1 §8.3.4
    //# HMAC(Kc, Ca || S || T_ID || SC_C || "Controller" || NQNc || 00h || NQNh)
    pub(crate) fn controller_response(&self, secret: &Secret) -> Digest {
        let answer = |key: &[u8]| self.answer(key, b"Controller", self.subsystem, self.host);
        with_key(secret, self.subsystem, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::group::shared_value;
    use super::super::keys::Group;
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn nqns() -> (Nqn, Nqn) {
        let host = "nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        let subsystem = "nqn.2026-11.dev.holdfast:node-1:db";
        (Nqn::new(host).unwrap(), Nqn::new(subsystem).unwrap())
    }

    /// Computed with another implementation: Python's hashlib, hmac and pow.
    /// Hash, transformation, group, bytes of the secret, the answers of host and controller.
    type Vector = (Hash, Option<Hash>, Group, usize, &'static str, &'static str);

    const VECTORS: [Vector; 9] = [
        (
            Hash::Sha256,
            None,
            Group::Null,
            32,
            "1d740b2da245f9946ac845ae496f0e625218c8ad8d4f90c12a21fcc880319539",
            "91690c160c3b4b60eea1479bc2501c5793709d8643a2cfe1d4b6d2ebc7f02266",
        ),
        (
            Hash::Sha256,
            Some(Hash::Sha256),
            Group::Null,
            32,
            "8e4ac1d6f7deb3b77aa6ce706194c5b107eaae9092a6e69aa794b63d48a9e217",
            "59659f1dcc9a382b4f2f37de152f1788936a8ca949502d87a0357f4e67418393",
        ),
        (
            Hash::Sha384,
            Some(Hash::Sha384),
            Group::Null,
            48,
            "8154a148af284331490d44e449a87750d6c00bc1c65fc16798eeab01c26690d2647ca5970287f162de29\
             9702aa673044",
            "1a64da928eb2f64a2f05c00c94fbbd8e98fddee24d9f7d7ff187f0db1f7340238f7cde99e287df08bd1f\
             9b72c0c99a0c",
        ),
        (
            Hash::Sha512,
            Some(Hash::Sha512),
            Group::Null,
            64,
            "ce4917eac1c1adcb39d6f32f72b9fd8dbb07a4ce13d8cd41927c7c6787fc9c3897cbb51d641985381ffa\
             86c00f016a03ae4f6be9c17252a35959814ff7a4c0a1",
            "0891027e1c48b3ac137fc8e786d35af1b9f51ca48a79a97731fa693a135863cb7c3c7a2d0adf8f63c44a\
             f994e4b042810b99bb150c98f26692e17fe0629e99dc",
        ),
        (
            Hash::Sha256,
            Some(Hash::Sha512),
            Group::Ffdhe2048,
            32,
            "08ae644be3d094008182fd1245d761618f168f1ecb3c5f2dba0b928d7928f5da",
            "875e8589ed1f4f80356c011ae750a1e37e68fdeecf0518641a5590d8b326ca60",
        ),
        (
            Hash::Sha384,
            Some(Hash::Sha256),
            Group::Ffdhe3072,
            48,
            "62cb018dd759b9ffdeed86928921be14a92cac97dbc1067444cbe8b6655a111546c4a819847d5d6a7f6f\
             77d58c2c4bb3",
            "559375c553a1437ddb55169f45563199e973603755d380288f1ef41a95f3cf4fbd7fda1a3000a5227e4c\
             2d6e009cbe37",
        ),
        (
            Hash::Sha512,
            None,
            Group::Ffdhe4096,
            64,
            "f6fdfe988f89d6ad3ab06b253e9eae72dd3a5085b48fb9f7f9c063deefbb4214c1a24853fa7303519222\
             c97b50a0a7b399522d829be68e7e987de17936f9a24d",
            "57d411087ef0244af377f2d0b95fad184364b58a56f5e1d64d52bc539b8abac015067193e26fdc7c4333\
             13ba88be90a218aca5d946bb9ec87e22e730d019b878",
        ),
        (
            Hash::Sha384,
            Some(Hash::Sha384),
            Group::Ffdhe6144,
            48,
            "250e6aed4d28431490a425e053d3dd1610872af8edb3eec3e83eb0ed031bbfac3e5984b9146445b0cbc8\
             6dde5c6af27a",
            "b4f39a8982e0005fe75d9f8dd2058f6237a6dc1f70dd4b058398ae6ef8309b2d55e88aebf8e94f553849\
             65f2de42a38a",
        ),
        (
            Hash::Sha512,
            Some(Hash::Sha256),
            Group::Ffdhe8192,
            32,
            "08602e322d343d2d6c00fc931a8882995b6f3261328d556731c4bd817e0b7341454ca08bf7255c0d829c\
             82d4296a51bed4f3a461ef745327eecd96ad12009090",
            "e8c50890eeecc7948803e816ee3be4396589cb71f9701b3748e2ce00e7f96556b155abeaf3fed45bf951\
             ff752f509aea5f672630d5bc5d254171d83241de6439",
        ),
    ];

    #[test]
    fn responses_are_those_of_another_implementation() {
        let (host, subsystem) = nqns();
        for (hash, transform, group, key_len, of_host, of_controller) in VECTORS {
            let bytes: Vec<u8> = (1..192).step_by(3).collect();
            let secret = Secret::new(transform, &bytes[..key_len]).unwrap();
            let challenge: Vec<u8> = (0..64u8).map(|i| i.wrapping_mul(5).wrapping_add(7)).collect();
            let ours: Vec<u8> = (0..64u8).map(|i| i.wrapping_mul(7).wrapping_add(9)).collect();
            let theirs: Vec<u8> = (0x81..0xc1).collect();
            let len = group.exponent_len();
            let public = super::super::group::public_value(group, &theirs[..len]);
            let shared = shared_value(group, &ours[..len], &public);
            let question = Question {
                hash,
                challenge: &challenge[..hash.size()],
                shared: shared.as_ref().map(|shared| shared.as_slice()),
                sequence: 0x0102_0304,
                transaction: 0xbeef,
                host: &host,
                subsystem: &subsystem,
            };
            let responses =
                (question.host_response(&secret), question.controller_response(&secret));
            assert_eq!(hex(responses.0.bytes()), of_host, "{hash:?} {transform:?} {group:?}");
            assert_eq!(hex(responses.1.bytes()), of_controller, "{hash:?} {transform:?} {group:?}");
        }
    }
}
