//! Secrets of DH-HMAC-CHAP in the form in which they are exchanged.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::ApiError;

/// A hash function of DH-HMAC-CHAP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DhchapHash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl DhchapHash {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The stable spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// The number that stands for it in a key: 1 to 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha384 => 2,
            Self::Sha512 => 3,
        }
    }
}

impl fmt::Display for DhchapHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DhchapHash {
    type Err = ApiError;

    /// Its name, or as other targets write it: `hmac(sha256)`.
    fn from_str(text: &str) -> Result<Self, ApiError> {
        let inner = text.strip_prefix("hmac(").and_then(|rest| rest.strip_suffix(')'));
        let name = inner.unwrap_or(text);
        Self::ALL.into_iter().find(|hash| hash.as_str() == name).ok_or_else(|| {
            let reason = format!("{text:?} is not a hash function");
            ApiError::invalid("dhchap-hash", reason, "use sha256, sha384 or sha512")
        })
    }
}

/// A group of DH-HMAC-CHAP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DhchapGroup {
    /// No Diffie-Hellman.
    Null,
    /// 2048 bits.
    Ffdhe2048,
    /// 3072 bits.
    Ffdhe3072,
    /// 4096 bits.
    Ffdhe4096,
    /// 6144 bits.
    Ffdhe6144,
    /// 8192 bits.
    Ffdhe8192,
}

impl DhchapGroup {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Null,
        Self::Ffdhe2048,
        Self::Ffdhe3072,
        Self::Ffdhe4096,
        Self::Ffdhe6144,
        Self::Ffdhe8192,
    ];

    /// The stable spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Ffdhe2048 => "ffdhe2048",
            Self::Ffdhe3072 => "ffdhe3072",
            Self::Ffdhe4096 => "ffdhe4096",
            Self::Ffdhe6144 => "ffdhe6144",
            Self::Ffdhe8192 => "ffdhe8192",
        }
    }
}

impl fmt::Display for DhchapGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DhchapGroup {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        Self::ALL.into_iter().find(|group| group.as_str() == text).ok_or_else(|| {
            let reason = format!("{text:?} is not a group");
            let hint = "use null, ffdhe2048, ffdhe3072, ffdhe4096, ffdhe6144 or ffdhe8192";
            ApiError::invalid("dhchap-dhgroup", reason, hint)
        })
    }
}

/// A secret, as `DHHC-1:HH:BASE64:` carries it: HH is 00 or the hash with which the secret is bound
/// to a name before it is used, BASE64 is 32, 48 or 64 bytes of secret with their CRC-32.
///
/// It is wiped when it is dropped, never shown by `Display` or `Debug`, and no error quotes it.
#[derive(Clone, Eq, PartialEq)]
pub struct DhchapKey {
    hash: Option<DhchapHash>,
    secret: Zeroizing<Vec<u8>>,
}

const PREFIX: &str = "DHHC-1:";
const HINT: &str = "make one: holdfast host gen-dhchap-key";

impl DhchapKey {
    /// A key of such a secret.
    ///
    /// # Errors
    /// When the secret does not have 32, 48 or 64 bytes.
    pub fn new(hash: Option<DhchapHash>, secret: &[u8]) -> Result<Self, ApiError> {
        if !matches!(secret.len(), 32 | 48 | 64) {
            let reason = format!("the secret has {} bytes", secret.len());
            return Err(ApiError::invalid("dhchap-key", reason, "use 32, 48 or 64 bytes"));
        }
        Ok(Self { hash, secret: Zeroizing::new(secret.to_vec()) })
    }

    /// With what the secret is bound to a name before it is used.
    #[must_use]
    pub fn hash(&self) -> Option<DhchapHash> {
        self.hash
    }

    /// The secret itself.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// The whole key as text: for the one who asked for it, and for the state store.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.secret.len() + 4));
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&crc32(&self.secret).to_le_bytes());
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 4 + 92 + 1));
        text.push_str(PREFIX);
        text.push('0');
        text.push(char::from(b'0' + self.hash.map_or(0, DhchapHash::number)));
        text.push(':');
        encode(&bytes, &mut text);
        text.push(':');
        text
    }
}

impl FromStr for DhchapKey {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let wrong = |reason: &str| ApiError::invalid("dhchap-key", reason, HINT);
        let rest = text.trim().strip_prefix(PREFIX);
        let rest = rest.ok_or_else(|| wrong("the key does not begin with \"DHHC-1:\""))?;
        let (hash, rest) = rest.split_once(':').ok_or_else(|| wrong("the key ends too early"))?;
        let hash = match hash {
            "00" => None,
            "01" => Some(DhchapHash::Sha256),
            "02" => Some(DhchapHash::Sha384),
            "03" => Some(DhchapHash::Sha512),
            _ => return Err(wrong("the key has a hash that is not 00, 01, 02 or 03")),
        };
        let body = rest.strip_suffix(':').ok_or_else(|| wrong("the key does not end with ':'"))?;
        let bytes = decode(body).ok_or_else(|| wrong("the key is not base64"))?;
        let Some((secret, crc)) = bytes.split_last_chunk::<4>() else {
            return Err(wrong("the key is too short"));
        };
        let key = Self::new(hash, secret)?;
        if crc32(secret) != u32::from_le_bytes(*crc) {
            return Err(wrong("the checksum of the key does not match: is it complete?"));
        }
        Ok(key)
    }
}

impl fmt::Debug for DhchapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DhchapKey(..)")
    }
}

/// CRC-32 as in Ethernet.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode(bytes: &[u8], text: &mut String) {
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let group = u32::from_be_bytes(group);
        for place in 0..4 {
            let index = usize::try_from(group >> (18 - 6 * place) & 63).expect("six bits");
            text.push(if place <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
}

/// Canonical base64 with padding, or nothing.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = text.as_bytes();
    if bytes.is_empty() || !bytes.len().is_multiple_of(4) || bytes.len() > 4 * 64 {
        return None;
    }
    let padding = bytes.iter().rev().take_while(|&&byte| byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut decoded = Zeroizing::new(Vec::with_capacity(bytes.len() / 4 * 3));
    for chunk in bytes[..bytes.len() - padding].chunks(4) {
        let mut group = 0;
        for place in 0..4 {
            let digit = match chunk.get(place) {
                Some(byte) => ALPHABET.iter().position(|known| known == byte)?,
                None => 0,
            };
            group = group << 6 | u32::try_from(digit).ok()?;
        }
        let [_, bytes @ ..] = group.to_be_bytes();
        let (used, unused) = bytes.split_at(chunk.len().checked_sub(1)?);
        // Bits that nothing uses must be clear, so that each secret has one spelling.
        if unused.iter().any(|&byte| byte != 0) {
            return None;
        }
        decoded.extend_from_slice(used);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by another implementation: Python's base64 and zlib.
    const KNOWN: [(Option<DhchapHash>, u8, &str); 4] = [
        (None, 32, "DHHC-1:00:AQQHCg0QExYZHB8iJSgrLjE0Nzo9QENGSUxPUlVYW174Qyfn:"),
        (
            Some(DhchapHash::Sha256),
            32,
            "DHHC-1:01:AQQHCg0QExYZHB8iJSgrLjE0Nzo9QENGSUxPUlVYW174Qyfn:",
        ),
        (
            Some(DhchapHash::Sha384),
            48,
            "DHHC-1:02:AQQHCg0QExYZHB8iJSgrLjE0Nzo9QENGSUxPUlVYW15hZGdqbXBzdnl8f4KFiIuOuCFqpg==:",
        ),
        (
            Some(DhchapHash::Sha512),
            64,
            "DHHC-1:03:AQQHCg0QExYZHB8iJSgrLjE0Nzo9QENGSUxPUlVYW15hZGdqbXBzdnl8f4KFiIuOkZSXmp\
             2go6aprK+ytbi7vjuf7H8=:",
        ),
    ];

    #[test]
    fn keys_are_spelled_as_other_tools_spell_them() {
        for (hash, len, text) in KNOWN {
            let secret: Vec<u8> = (0..len).map(|i| i * 3 + 1).collect();
            let key = DhchapKey::new(hash, &secret).unwrap();
            assert_eq!(*key.expose(), text);
            assert_eq!(text.parse::<DhchapKey>().unwrap(), key);
        }
    }

    #[test]
    fn refusals_name_the_defect_and_never_the_key() {
        let good = KNOWN[0].2;
        let body = &good[10..];
        let cases = [
            (String::new(), "begin"),
            (good.replace("DHHC-1", "DHHC-2"), "begin"),
            (good.replace("DHHC-1:00", "DHHC-1:04"), "00, 01, 02 or 03"),
            (good.trim_end_matches(':').to_owned(), "end with"),
            (format!("DHHC-1:00:{}", body.replacen('A', "*", 1)), "base64"),
            (format!("DHHC-1:00:{}", body.replacen('A', "B", 1)), "checksum"),
            ("DHHC-1:00:AAAA:".to_owned(), "too short"),
            ("DHHC-1:00:AAAAAAAA:".to_owned(), "the secret has 2 bytes"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<DhchapKey>().unwrap_err();
            let shown = format!("{error} {} {error:?}", error.hint());
            assert!(shown.contains(expected), "{shown}");
            assert!(!shown.contains(&body[..16]), "{shown}");
        }
        let key: DhchapKey = good.parse().unwrap();
        assert_eq!(format!("{key:?}"), "DhchapKey(..)");
    }

    #[test]
    fn hashes_and_groups_have_the_names_that_operators_know() {
        assert_eq!("hmac(sha384)".parse::<DhchapHash>().unwrap(), DhchapHash::Sha384);
        assert!(
            "sha1".parse::<DhchapHash>().is_err() && "hmac(sha256".parse::<DhchapHash>().is_err()
        );
        for group in DhchapGroup::ALL {
            assert_eq!(group.to_string().parse::<DhchapGroup>().unwrap(), group);
        }
        assert!("modp2048".parse::<DhchapGroup>().is_err());
    }

    proptest! {
        #[test]
        fn any_secret_survives_its_spelling(
            bytes in proptest::collection::vec(any::<u8>(), 64), len in 0_usize..3,
        ) {
            let secret = &bytes[..[32, 48, 64][len]];
            let key = DhchapKey::new(Some(DhchapHash::Sha256), secret).unwrap();
            prop_assert_eq!(key.expose().parse::<DhchapKey>().unwrap(), key);
        }

        #[test]
        fn any_text_is_a_key_or_a_refusal(text in "(DHHC-1:0[0-9]:)?[A-Za-z0-9+/=:]{0,120}") {
            let _ = text.parse::<DhchapKey>();
        }
    }
}
