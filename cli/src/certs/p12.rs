//! PKCS #12 (RFC 7292): a key with its certificates in one encrypted file, as browsers, Java and Windows import them.
//!
//! Written by hand since the libraries that can write it bring a hundred others. Everything is encrypted with AES-256 under
//! PBKDF2 (PBES2, RFC 8018) and authenticated with HMAC-SHA-256, which every reader of the last decade knows.

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, hmac, pbkdf2, rand};
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, Tag, construct_der};

/// Rounds of both key derivations: some ten milliseconds. The password is random, so guessing is hopeless with fewer too.
const ROUNDS: u32 = 100_000;

const DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 1];
const ENCRYPTED_DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 6];
const X509_CERTIFICATE: &[u64] = &[1, 2, 840, 113_549, 1, 9, 22, 1];
const FRIENDLY_NAME: &[u64] = &[1, 2, 840, 113_549, 1, 9, 20];
const LOCAL_KEY_ID: &[u64] = &[1, 2, 840, 113_549, 1, 9, 21];
const SHROUDED_KEY_BAG: &[u64] = &[1, 2, 840, 113_549, 1, 12, 10, 1, 2];
const CERT_BAG: &[u64] = &[1, 2, 840, 113_549, 1, 12, 10, 1, 3];
const PBES2: &[u64] = &[1, 2, 840, 113_549, 1, 5, 13];
const PBKDF2: &[u64] = &[1, 2, 840, 113_549, 1, 5, 12];
const HMAC_SHA256: &[u64] = &[1, 2, 840, 113_549, 2, 9];
const AES_256_CBC: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 1, 42];
const SHA_256: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];

/// What goes into the file, in DER.
pub struct Contents<'a> {
    /// What the importing program shows.
    pub name: &'a str,
    /// PKCS#8.
    pub key: &'a [u8],
    /// The key's certificate, then those above it.
    pub certificates: &'a [&'a [u8]],
}

/// The file's bytes. The password is ASCII.
pub fn write(contents: &Contents, password: &str) -> anyhow::Result<Vec<u8>> {
    let id =
        digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, contents.certificates.first().unwrap_or(&&[][..]));
    let certificates = construct_der(|w| {
        w.write_sequence_of(|w| {
            for (i, certificate) in contents.certificates.iter().enumerate() {
                bag(w.next(), CERT_BAG, (i == 0).then_some((contents.name, id.as_ref())), |w| {
                    w.write_sequence(|w| {
                        w.next().write_oid(&oid(X509_CERTIFICATE));
                        explicit(w.next(), |w| w.write_bytes(certificate));
                    });
                });
            }
        });
    });
    let key = Sealed::new(contents.key, password)?;
    let key = construct_der(|w| {
        w.write_sequence_of(|w| {
            bag(w.next(), SHROUDED_KEY_BAG, Some((contents.name, id.as_ref())), |w| {
                w.write_sequence(|w| {
                    key.algorithm(w.next());
                    w.next().write_bytes(&key.bytes);
                });
            });
        });
    });
    let certificates = Sealed::new(&certificates, password)?;
    let safe = construct_der(|w| {
        w.write_sequence_of(|w| {
            content(w.next(), ENCRYPTED_DATA, |w| {
                w.write_sequence(|w| {
                    w.next().write_u8(0);
                    w.next().write_sequence(|w| {
                        w.next().write_oid(&oid(DATA));
                        certificates.algorithm(w.next());
                        w.next()
                            .write_tagged_implicit(Tag::context(0), |w| w.write_bytes(&certificates.bytes));
                    });
                });
            });
            content(w.next(), DATA, |w| w.write_bytes(&key));
        });
    });
    let salt = random::<16>()?;
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &mac_key(password, &salt)), &safe);
    Ok(construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_u8(3);
            content(w.next(), DATA, |w| w.write_bytes(&safe));
            w.next().write_sequence(|w| {
                w.next().write_sequence(|w| {
                    w.next().write_sequence(|w| {
                        w.next().write_oid(&oid(SHA_256));
                        w.next().write_null();
                    });
                    w.next().write_bytes(mac.as_ref());
                });
                w.next().write_bytes(&salt);
                w.next().write_u32(ROUNDS);
            });
        });
    }))
}

/// Encrypted bytes, and with what.
struct Sealed {
    salt: [u8; 16],
    iv: [u8; 16],
    bytes: Vec<u8>,
}

impl Sealed {
    fn new(plain: &[u8], password: &str) -> anyhow::Result<Self> {
        let (salt, iv) = (random::<16>()?, random::<16>()?);
        let mut key = [0; 32];
        let rounds = NonZeroU32::new(ROUNDS).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut key);
        let mut bytes = plain.to_vec();
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        let _: DecryptionContext = UnboundCipherKey::new(&AES_256, &key)
            .and_then(PaddedBlockEncryptingKey::cbc_pkcs7)
            .and_then(|key| key.less_safe_encrypt(&mut bytes, context))
            .map_err(|_| anyhow::anyhow!("the cryptography library cannot encrypt"))?;
        Ok(Self { salt, iv, bytes })
    }

    /// `AlgorithmIdentifier` of PBES2.
    fn algorithm(&self, w: DERWriter) {
        w.write_sequence(|w| {
            w.next().write_oid(&oid(PBES2));
            w.next().write_sequence(|w| {
                w.next().write_sequence(|w| {
                    w.next().write_oid(&oid(PBKDF2));
                    w.next().write_sequence(|w| {
                        w.next().write_bytes(&self.salt);
                        w.next().write_u32(ROUNDS);
                        w.next().write_sequence(|w| {
                            w.next().write_oid(&oid(HMAC_SHA256));
                            w.next().write_null();
                        });
                    });
                });
                w.next().write_sequence(|w| {
                    w.next().write_oid(&oid(AES_256_CBC));
                    w.next().write_bytes(&self.iv);
                });
            });
        });
    }
}

/// The key of the authentication code: appendix B of RFC 7292 with SHA-256, whose one block is all that is needed.
fn mac_key(password: &str, salt: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut text: Vec<u8> = password.encode_utf16().flat_map(u16::to_be_bytes).collect();
    text.extend([0, 0]);
    let repeated = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().copied().cycle().take(bytes.len().div_ceil(BLOCK) * BLOCK).collect()
    };
    let mut hashed = vec![3; BLOCK];
    hashed.extend(repeated(salt));
    hashed.extend(repeated(&text));
    let mut key = [0; 32];
    for _ in 0..ROUNDS {
        key.copy_from_slice(digest::digest(&digest::SHA256, &hashed).as_ref());
        hashed.clear();
        hashed.extend(key);
    }
    key
}

/// `ContentInfo`.
fn content(w: DERWriter, kind: &[u64], inner: impl FnOnce(DERWriter)) {
    w.write_sequence(|w| {
        w.next().write_oid(&oid(kind));
        explicit(w.next(), inner);
    });
}

/// `SafeBag`, with the name and the id that tie a key to its certificate.
fn bag(w: DERWriter, kind: &[u64], called: Option<(&str, &[u8])>, inner: impl FnOnce(DERWriter)) {
    w.write_sequence(|w| {
        w.next().write_oid(&oid(kind));
        explicit(w.next(), inner);
        let Some((name, id)) = called else { return };
        w.next().write_set_of(|w| {
            attribute(w.next(), FRIENDLY_NAME, |w| w.write_bmp_string(name));
            attribute(w.next(), LOCAL_KEY_ID, |w| w.write_bytes(id));
        });
    });
}

fn attribute(w: DERWriter, kind: &[u64], value: impl FnOnce(DERWriter)) {
    w.write_sequence(|w| {
        w.next().write_oid(&oid(kind));
        w.next().write_set_of(|w| value(w.next()));
    });
}

fn explicit(w: DERWriter, inner: impl FnOnce(DERWriter)) {
    w.write_tagged(Tag::context(0), inner);
}

fn oid(components: &[u64]) -> ObjectIdentifier {
    ObjectIdentifier::from_slice(components)
}

/// A password that nobody can guess: 26 letters and digits, 128 bits and more.
pub fn password() -> anyhow::Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";
    Ok(random::<26>()?.iter().map(|b| char::from(LETTERS[usize::from(b % 32)])).collect())
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_never_the_same() {
        let (a, b) = (password().expect("random"), password().expect("random"));
        assert_eq!(a.len(), 26);
        assert!(a.bytes().all(|c| c.is_ascii_alphanumeric()), "{a}");
        assert_ne!(a, b);
    }

    #[test]
    fn the_derived_key_is_that_of_another_implementation() {
        // Of `openssl kdf PKCS12KDF` with SHA-256, id 3 and as many rounds.
        let expected = "2b19c0706eb8378b90fdb0e9ec4f3b88b3dbce3b750298979743f4cd49aba402";
        let key: String = mac_key("smeg", b"0123456789abcdef").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(key, expected);
    }
}
