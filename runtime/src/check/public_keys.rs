//! Public keys of `jwt_secrets`: PEM of the kind that the algorithm takes.

use crate::diag::{Diagnostic, Diags, codes};
use crate::model::{CredentialKind, Model};
use crate::token::{Algorithm, Key};

pub(super) fn check(model: &Model, diags: &mut Diags) {
    for credential in model.credentials.iter().filter(|c| c.kind == CredentialKind::Jwt) {
        let record = &credential.record;
        let algorithm = record.str("algorithm").and_then(Algorithm::parse).filter(|a| !a.is_symmetric());
        let (Some(algorithm), Some(text)) = (algorithm, record.str("rsa_public_key")) else { continue };
        if let Err(reason) = Key::public_pem(algorithm, text) {
            let span = record.span_of("rsa_public_key");
            diags.push(
                Diagnostic::new(&codes::BAD_PUBLIC_KEY, span, format!("`rsa_public_key`: invalid key: {reason}"))
                    .also(record.span_of("algorithm"), format!("the algorithm is {}", algorithm.name()))
                    .help("give the public key as PEM, from `-----BEGIN PUBLIC KEY-----` to `-----END PUBLIC KEY-----`"),
            );
        }
    }
}
