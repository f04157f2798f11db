//! `gw token keygen`.

use std::path::PathBuf;

use anyhow::Context as _;
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gw_runtime::token::Algorithm;
use gw_runtime::token::algorithm::Family;
use gw_runtime::token::sign::to_pem;

use super::mint::algorithm;
use super::print;
use crate::certs::Pair;
use crate::certs::store::Store;
use crate::exit::Code;

/// Arguments of `gw token keygen`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
For HS256, HS384 and HS512 a secret is printed. For the others the public key goes to NAME.pem and the private key, \
readable by its owner alone, to NAME-key.pem; without --out both are printed, the private key first.")]
pub struct Args {
    /// The algorithm that the key is for
    #[arg(long, value_name = "ALG", value_parser = algorithm)]
    alg: Algorithm,
    /// Path of the files, without ending
    #[arg(long, value_name = "NAME")]
    out: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long, requires = "out")]
    force: bool,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Code> {
    if args.alg.is_symmetric() {
        anyhow::ensure!(args.out.is_none(), "a secret is printed, not written to a file; leave out `--out`");
        print(&format!("{}\n", secret(args.alg)?))?;
        return Ok(Code::Ok);
    }
    let (private, public) = key_pair(args.alg).context("the key could not be made")?;
    let Some(out) = &args.out else {
        print(&format!("{private}{public}"))?;
        return Ok(Code::Ok);
    };
    let name = out.file_name().and_then(|n| n.to_str()).context("`--out` has no file name")?;
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(".".as_ref());
    let store = Store::new(folder, args.force);
    store.write(name, &Pair { certificate: public, key: private })?;
    println!("{}\n{}", store.certificate(name).display(), store.key(name).display());
    Ok(Code::Ok)
}

/// As many random bytes as the hash is long, in base64url.
pub fn secret(algorithm: Algorithm) -> anyhow::Result<String> {
    let mut bytes = vec![
        0;
        match algorithm {
            Algorithm::HS512 => 64,
            Algorithm::HS384 => 48,
            _ => 32,
        }
    ];
    aws_lc_rs::rand::fill(&mut bytes).context("the system gives no random bytes")?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Private and public key in PEM.
pub fn key_pair(algorithm: Algorithm) -> anyhow::Result<(String, String)> {
    let pem = |private: &[u8], public: PublicKeyX509Der<'_>| {
        (to_pem("PRIVATE KEY", private), to_pem("PUBLIC KEY", public.as_ref()))
    };
    Ok(match algorithm.family() {
        Family::Rsa => {
            let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048)?;
            let private: Pkcs8V1Der<'_> = pair.as_der()?;
            pem(private.as_ref(), pair.public_key().as_der()?)
        }
        Family::Ed => {
            let pair = Ed25519KeyPair::generate()?;
            pem(pair.to_pkcs8()?.as_ref(), pair.public_key().as_der()?)
        }
        _ => {
            let pair = EcdsaKeyPair::generate(match algorithm {
                Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
                Algorithm::ES512 => &ECDSA_P521_SHA512_FIXED_SIGNING,
                _ => &ECDSA_P256_SHA256_FIXED_SIGNING,
            })?;
            pem(pair.to_pkcs8v1()?.as_ref(), pair.public_key().as_der()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use gw_runtime::token::Key;
    use gw_runtime::token::sign::Signer;

    use super::*;

    #[test]
    fn keys_fit_their_algorithm() {
        for algorithm in Algorithm::ALL.iter().copied() {
            if algorithm.is_symmetric() {
                assert!(secret(algorithm).expect("a secret").len() >= 43);
                continue;
            }
            let (private, public) = key_pair(algorithm).expect("a pair");
            Signer::private_pem(algorithm, &private).unwrap_or_else(|e| panic!("{algorithm}: {e}"));
            Key::public_pem(algorithm, &public).unwrap_or_else(|e| panic!("{algorithm}: {e}"));
        }
    }
}
