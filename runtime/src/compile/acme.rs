//! What certificates are to be ordered, from settings to what the ordering task works by.

use std::sync::Arc;
use std::time::Duration;

use crate::acme::account::Binding;
use crate::acme::{Acme, Certificates, Storage};
use crate::check::Checked;
use crate::diag::{Diagnostic, Diags, codes};
use crate::limit::RedisSettings;
use crate::model::Model;
use crate::model::acme::{Challenge, Storage as Written};
use crate::policy::call::Transport;
use crate::policy::redis_settings;
use crate::snapshot::shared::Shared;
use crate::source::Span;
use crate::tls::lasting::ClientConfigs;
use crate::tls::{self, ClientSettings};

/// How long connecting to an ACME server may take.
const CONNECT: Duration = Duration::from_secs(10);

pub(super) fn build(model: &Checked<Model>, shared: &Arc<Shared>, diags: &mut Diags) -> Option<Arc<Acme>> {
    let settings = model.gateway.acme.as_ref()?;
    let mut report = |span: Span, message: String, help: &str| {
        let message = format!("`gateway.acme`: {message}");
        diags.push(Diagnostic::new(&codes::INVALID_VALUE, span, message).help(help));
    };
    let ca_span = settings.ca.as_ref().map_or(settings.challenge.span, |ca| ca.path.span);
    let ca = settings.ca.as_ref().and_then(|ca| ca.pem.as_deref());
    let client = ClientSettings { verify: true, ca: ca.into_iter().collect(), ..ClientSettings::default() };
    let client = match shared.get::<ClientConfigs>().get(&client) {
        Ok(client) => client,
        Err(e) => {
            report(
                ca_span,
                format!("the server cannot be verified: {e}"),
                "name a PEM file with its authorities",
            );
            return None;
        }
    };
    let external_account = match &settings.external_account {
        None => None,
        Some(external) => match Binding::new(&external.kid, &external.hmac_key.value) {
            Ok(binding) => Some(binding),
            Err(why) => {
                let help = "give the key as the authority shows it";
                report(external.hmac_key.span, format!("`external_account.hmac_key`: {why}"), help);
                return None;
            }
        },
    };
    let storage = match &settings.storage {
        Written::Folder(path) => Storage::Folder(path.clone()),
        Written::Redis(span) if model.gateway.redis.is_none() => {
            let help = "add `redis: redis://HOST:6379` to `gateway`, or name a folder";
            report(*span, "`storage` is `redis`, but there is no `gateway.redis`".to_owned(), help);
            return None;
        }
        Written::Redis(_) => {
            // What is wrong there was reported when it was checked.
            let redis = redis_settings::of_gateway(model, &mut Diags::new())?;
            // No request waits for it, so that it may take its time.
            Storage::Redis(Arc::new(RedisSettings { max_wait: redis.timeout, ..redis }))
        }
    };
    let certificates = shared.get::<Certificates>();
    let challenge_tls = match settings.challenge.value {
        Challenge::Http01 => None,
        Challenge::TlsAlpn01 => tls::challenge_config(Arc::clone(&certificates)).ok(),
    };
    Some(Arc::new(Acme {
        server: settings.server.clone(),
        transport: Transport::over(client, CONNECT),
        email: settings.email.clone(),
        domains: settings.domains.iter().map(|d| d.value.clone()).collect(),
        challenge: settings.challenge.value,
        key_type: settings.key_type,
        renew_before: settings.renew_before,
        external_account,
        storage,
        certificates,
        challenge_tls,
    }))
}
