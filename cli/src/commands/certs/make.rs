//! `gw certs init`, `server` and `client`.

use std::path::Path;

use gw_runtime::message::split_port;
use gw_runtime::model::Model;
use time::OffsetDateTime;

use super::{Client, Init, Server};
use crate::certs::inspect;
use crate::certs::store::Store;
use crate::certs::{self, Broken, Pair, Purpose, Request};
use crate::exit::{Code, WithCode};

/// The authority's files.
pub const CA: &str = "ca";

pub fn init(args: &Init) -> anyhow::Result<Code> {
    let store = Store::new(&args.folder.out, args.folder.force);
    store.check_free(CA)?;
    let further = args.allow.clone();
    make_ca(&store, (!args.unconstrained).then_some(further.as_slice()))?;
    println!("\nTrust it where it is needed, rather than everywhere:");
    println!("  curl --cacert {} https://localhost:8443/", store.certificate(CA).display());
    println!("  SSL_CERT_FILE={0}   NODE_EXTRA_CA_CERTS={0}", store.certificate(CA).display());
    println!("Whoever has `{}` can pass for any host to whoever trusts it.", store.key(CA).display());
    Ok(Code::Ok)
}

pub fn server(args: &Server) -> anyhow::Result<Code> {
    let mut hosts = args.hosts.clone();
    if let Some(host) = hosts.iter().find(|h| !certs::is_certifiable(h)) {
        let message = format!("`{host}` is neither a host name nor an IP address");
        return Err(WithCode(Code::Usage, message).into());
    }
    if let Some(path) = &args.config {
        hosts.extend(hosts_of(&*crate::load::checked(path)?));
    }
    let request = Request { purpose: Purpose::Server, names: certs::server_names(&hosts), days: args.days };
    let store = Store::new(&args.folder.out, args.folder.force);
    sign(&store, &args.name, &request, args.broken)?;
    if args.broken.is_some() {
        return Ok(Code::Ok);
    }
    println!("\nUse it:");
    println!(
        "  gw serve CONFIG --listen-tls 127.0.0.1:8443 --tls-cert {} --tls-key {}",
        store.certificate(&args.name).display(),
        store.key(&args.name).display()
    );
    println!("  curl --cacert {} https://localhost:8443/", store.certificate(CA).display());
    Ok(Code::Ok)
}

pub fn client(args: &Client) -> anyhow::Result<Code> {
    let request = Request { purpose: Purpose::Client, names: args.ids.clone(), days: args.days };
    let store = Store::new(&args.folder.out, args.folder.force);
    sign(&store, &args.name, &request, args.broken)?;
    if args.broken.is_some() {
        return Ok(Code::Ok);
    }
    println!("\nUse it:");
    println!(
        "  curl --cacert {} --cert {} --key {} https://localhost:8443/",
        store.certificate(CA).display(),
        store.certificate(&args.name).display(),
        store.key(&args.name).display()
    );
    Ok(Code::Ok)
}

/// Signs a certificate, with an authority made on the way if the folder has none.
fn sign(store: &Store, name: &str, request: &Request, broken: Option<Broken>) -> anyhow::Result<()> {
    store.check_free(name)?;
    let ca = if store.has(CA) { store.read(CA)? } else { make_ca(store, Some(&request.names))? };
    if let (None, Some(host)) = (broken, inspect::outside(&ca.certificate, &hosts_in(request))?.first()) {
        let message = format!(
            "the authority `{}` is constrained to other names than `{host}`, so clients would refuse the certificate; \
             make another one with `gw certs init --allow {host} --force`",
            store.certificate(CA).display()
        );
        return Err(WithCode(Code::Usage, message).into());
    }
    let now = OffsetDateTime::now_utc();
    let pair = match broken {
        None => certs::issue(&ca, request, now),
        Some(how) => certs::issue_broken(&ca, request, how, now),
    };
    let pair = pair.map_err(|e| WithCode(Code::Usage, format!("cannot sign: {e:#}")))?;
    store.write(name, &pair)?;
    report(store, name, &pair)
}

/// The names of a request that become host names in the certificate.
fn hosts_in(request: &Request) -> Vec<String> {
    let is_host = |n: &&String| request.purpose == Purpose::Server || n.contains('.');
    request.names.iter().filter(is_host).cloned().collect()
}

fn make_ca(store: &Store, constrained: Option<&[String]>) -> anyhow::Result<Pair> {
    // Addresses, mail addresses and URIs are no names below which others stand.
    let hosts = |names: &[String]| -> Vec<String> {
        let is_host = |n: &&String| certs::is_certifiable(n) && n.parse::<std::net::IpAddr>().is_err();
        names.iter().filter(is_host).cloned().collect()
    };
    let pair = certs::authority(OffsetDateTime::now_utc(), constrained.map(hosts).as_deref())?;
    // `--force` is about what was asked for; an authority is only replaced where it is that.
    store.write(CA, &pair)?;
    report(store, CA, &pair)?;
    Ok(pair)
}

/// Says what was made.
pub fn report(store: &Store, name: &str, pair: &Pair) -> anyhow::Result<()> {
    let made = &inspect::describe(&pair.certificate)?[0];
    println!("{}", store.certificate(name).display());
    println!(
        "  for          {}",
        if made.names.is_empty() { made.subject.clone() } else { made.names.join(", ") }
    );
    println!("  until        {}", inspect::date_time(made.not_after));
    println!("  fingerprint  sha256:{}", made.fingerprint);
    println!("{}", store.key(name).display());
    if let Some(broad) = made.names.iter().find(|n| is_broad(n)) {
        eprintln!("warning: many clients refuse `{broad}`: a `*` must have two labels behind it");
    }
    Ok(())
}

/// Whether a wildcard stands right below the top.
fn is_broad(name: &str) -> bool {
    name.strip_prefix("*.").is_some_and(|rest| !rest.contains('.'))
}

/// Every host that the config's routes answer to and that a certificate can be for.
fn hosts_of(model: &Model) -> Vec<String> {
    let hosts = model.routes.iter().flat_map(|r| r.hosts.iter().chain(&r.snis));
    let snis = model.snis.iter().map(|s| &s.name);
    let (good, bad): (Vec<_>, Vec<_>) =
        hosts.chain(snis).map(|h| split_port(&h.value).0.to_owned()).partition(|h| certs::is_certifiable(h));
    for host in bad {
        eprintln!("note: no certificate can be for `{host}`; left out");
    }
    good
}

/// Whether this is the authority's certificate.
pub fn is_ca(path: &Path) -> bool {
    path.file_stem().is_some_and(|s| s == CA)
}
