//! What of TLS outlives a reload: the keys of session tickets, and the settings towards upstreams that did not change.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ::aws_lc_rs::digest::{Context, SHA256};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::ProducesTickets;

use super::tickets::{Secret, SharedTickets};
use super::{ClientSettings, client_config_with, invalid, system_roots};

type Digest = [u8; 32];

/// The keys of session tickets, so that clients resume their sessions after a reload.
#[derive(Default)]
pub struct Tickets(Mutex<Option<(Digest, Arc<dyn ProducesTickets>)>>);

impl Tickets {
    /// The keys for these rules about client certificates: made of `secrets`, or of chance where there are none. New
    /// rules get new keys: a ticket from before them must not spare a client the check.
    pub fn get(&self, rules: &[u8], secrets: &[Secret]) -> io::Result<Arc<dyn ProducesTickets>> {
        let digest = digest([rules].into_iter().chain(secrets.iter().map(Vec::as_slice)));
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, keys)) = &*current
            && *of == digest
        {
            return Ok(Arc::clone(keys));
        }
        let keys = match secrets {
            [] => aws_lc_rs::Ticketer::new().map_err(|e| invalid("session tickets", e))?,
            secrets => SharedTickets::shared(secrets, rules)?,
        };
        *current = Some((digest, Arc::clone(&keys)));
        Ok(keys)
    }
}

/// The settings towards upstreams in use, by what they were made of. Idle connections belong to the settings that they
/// were made with, so equal settings must stay the same object for connections to outlive a reload.
#[derive(Default)]
pub struct ClientConfigs(Mutex<HashMap<Digest, Weak<ClientConfig>>>);

impl ClientConfigs {
    /// The configuration for these settings, made anew only if none like it is in use.
    pub fn get(&self, settings: &ClientSettings<'_>) -> io::Result<Arc<ClientConfig>> {
        let roots = system_roots(settings);
        let flags = [u8::from(settings.verify), u8::from(settings.h2), u8::from(roots.is_some())];
        let (cert, key) = settings.client_certificate.map_or(("", ""), |(c, k)| (c, k));
        let parts = [&flags[..], cert.as_bytes(), key.as_bytes()].into_iter();
        let parts = parts.chain(settings.ca.iter().map(|ca| ca.as_bytes()));
        let digest = digest(parts.chain(roots.iter().flatten().map(|r| &**r)));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = all.get(&digest).and_then(Weak::upgrade) {
            return Ok(config);
        }
        let config = client_config_with(settings, roots)?;
        all.retain(|_, config| config.strong_count() > 0);
        all.insert(digest, Arc::downgrade(&config));
        Ok(config)
    }
}

/// Of all parts, their lengths included, so that no two lists of parts are alike.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = Digest::default();
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_settings_are_one_object_as_long_as_it_is_used() {
        let all = ClientConfigs::default();
        let of = |verify, h2| ClientSettings { verify, h2, ..ClientSettings::default() };
        let first = all.get(&of(false, false)).unwrap();
        assert!(Arc::ptr_eq(&first, &all.get(&of(false, false)).unwrap()));
        for (verify, h2) in [(true, false), (false, true)] {
            assert!(!Arc::ptr_eq(&first, &all.get(&of(verify, h2)).unwrap()), "{verify} {h2}");
        }
        drop(first);
        drop(all.get(&of(true, true)).unwrap());
        assert_eq!(all.0.lock().unwrap().len(), 1, "what is not used is forgotten");
    }

    #[test]
    fn ticket_keys_stay_until_the_rules_for_clients_change() {
        let all = Tickets::default();
        let none = all.get(b"none", &[]).unwrap();
        assert!(Arc::ptr_eq(&none, &all.get(b"none", &[]).unwrap()));
        assert!(!Arc::ptr_eq(&none, &all.get(b"required", &[]).unwrap()));
        let secret = [vec![1; 80]];
        let shared = all.get(b"none", &secret).unwrap();
        assert!(Arc::ptr_eq(&shared, &all.get(b"none", &secret).unwrap()));
        assert!(!Arc::ptr_eq(&shared, &all.get(b"none", &[vec![2; 80]]).unwrap()));
    }
}
