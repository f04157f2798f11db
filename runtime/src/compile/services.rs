//! Services, and the certificates for clients.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::check::Checked;
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::{Model, Service as Written};
use crate::snapshot::shared::Shared;
use crate::snapshot::{Certificate, Scheme, Service, UpstreamId};
use crate::tls::lasting::ClientConfigs;
use crate::tls::{ClientSettings, ClientTls, PemPair};

/// Makes the table of services.
pub fn build(model: &Checked<Model>, shared: &Shared, diags: &mut Diags) -> Box<[Service]> {
    let mut configs = Configs { lasting: shared.get(), by_key: HashMap::new() };
    let mut services = Vec::with_capacity(model.services.len());
    for (i, s) in model.services.iter().enumerate() {
        let scheme = match s.protocol.as_str() {
            "https" => Scheme::Https,
            "grpc" => Scheme::Grpc,
            "grpcs" => Scheme::Grpcs,
            _ => Scheme::Http,
        };
        let http2 = s.http2 || matches!(scheme, Scheme::Grpc | Scheme::Grpcs);
        let tls = match scheme {
            Scheme::Https | Scheme::Grpcs => tls_of(model, i, s, http2, &mut configs, diags),
            Scheme::Http | Scheme::Grpc => None,
        };
        services.push(Service {
            id: s.id.clone(),
            name: s.name.as_ref().map(|n| n.value.clone()),
            scheme,
            host: s.host.value.clone(),
            port: s.port,
            authority: authority(&s.host, s.port, scheme),
            path: s.path.as_ref().map_or_else(|| "/".to_owned(), |p| p.value.clone()),
            retries: s.retries,
            connect_timeout: Duration::from_millis(s.connect_timeout),
            write_timeout: Duration::from_millis(s.write_timeout),
            read_timeout: Duration::from_millis(s.read_timeout),
            upstream: model.links().service_upstream.get(i).copied().flatten().map(|u| UpstreamId(u as u32)),
            tls,
            http2,
        });
    }
    services.into()
}

/// What a host begins with that is the path of a Unix socket.
const UNIX: &str = "unix:/";

/// `host`, and `port` unless it is the scheme's own.
fn authority(host: &str, port: u16, scheme: Scheme) -> String {
    if host.starts_with(UNIX) {
        return "localhost".to_owned();
    }
    match port == scheme.default_port() {
        true => host.to_owned(),
        false => format!("{host}:{port}"),
    }
}

/// What decides about a TLS configuration; services alike in it share one, and so their connections.
type TlsKey = (bool, Vec<usize>, Option<usize>, bool);

/// The configurations made so far.
struct Configs {
    lasting: Arc<ClientConfigs>,
    by_key: HashMap<TlsKey, Arc<rustls::ClientConfig>>,
}

fn tls_of(
    model: &Checked<Model>,
    i: usize,
    s: &Written,
    h2: bool,
    configs: &mut Configs,
    diags: &mut Diags,
) -> Option<ClientTls> {
    let links = model.links();
    let name = Arc::from(s.host.value.as_str());
    let verify = s.tls_verify.unwrap_or(model.gateway.tls.verify_upstreams);
    let cas = links.service_cas.get(i).cloned().unwrap_or_default();
    let of_upstream = || links.upstream_certificate[links.service_upstream[i]?];
    let certificate = links.service_certificate.get(i).copied().flatten().or_else(of_upstream);
    let key = (verify, cas.clone(), certificate, h2);
    if let Some(config) = configs.by_key.get(&key) {
        return Some(ClientTls { config: Arc::clone(config), name });
    }
    let pair: Option<PemPair> = certificate.map(|c| {
        let c = &model.certificates[c];
        (c.cert.value.clone(), c.key.value.clone())
    });
    let ca = cas
        .iter()
        .map(|c| model.ca_certificates[*c].cert.as_str())
        .chain(model.gateway.tls.upstream_authorities())
        .collect();
    let settings = ClientSettings { verify, ca, client_certificate: pair.as_ref(), h2 };
    match configs.lasting.get(&settings) {
        Ok(config) => {
            configs.by_key.insert(key, Arc::clone(&config));
            Some(ClientTls { config, name })
        }
        Err(e) => {
            diags.push(Diagnostic::new(&codes::INVALID_VALUE, s.span, e.to_string()));
            None
        }
    }
}

/// The server certificates with the names that they are for.
pub fn certificates(model: &Checked<Model>) -> Box<[Certificate]> {
    let mut all: Vec<Certificate> = Vec::with_capacity(model.certificates.len());
    for c in &model.certificates {
        let mut pairs = vec![(c.cert.value.clone(), c.key.value.clone())];
        if let (Some(cert), Some(key)) = (&c.cert_alt, &c.key_alt) {
            pairs.push((cert.value.clone(), key.value.clone()));
        }
        all.push(Certificate { snis: Vec::new(), pairs });
    }
    for (sni, &certificate) in model.snis.iter().zip(&model.links().sni_certificate) {
        all[certificate].snis.push(sni.name.value.to_ascii_lowercase());
    }
    all.into()
}
