//! When served certificates end, and how ordering them goes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::metrics::{escape, head};
use crate::snapshot::Snapshot;
use crate::tls;

/// The ends of served certificates by name, in Unix seconds: the config's, else those that were ordered. Of several for
/// one name the earliest counts.
pub fn ends(snapshot: &Snapshot) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for certificate in &snapshot.certificates {
        let end = certificate.pairs.iter().filter_map(|(pem, _)| tls::not_after(pem)).min();
        for (sni, end) in certificate.snis.iter().zip(end.into_iter().cycle()) {
            all.insert(sni.clone(), end);
        }
    }
    if let Some(acme) = &snapshot.acme {
        for (name, ours) in acme.certificates.all().iter() {
            all.entry(name.clone()).or_insert(ours.not_after);
        }
    }
    all
}

/// Their metrics.
pub(super) fn render(snapshot: &Snapshot, out: &mut String) {
    let ends = ends(snapshot);
    if !ends.is_empty() {
        const NAME: &str = "gw_certificate_expiry_seconds";
        head(out, NAME, "gauge", "when the certificate for a name ends, in Unix time");
        for (sni, end) in ends {
            let _ = writeln!(out, "{NAME}{{sni=\"{}\"}} {end}", escape(&sni));
        }
    }
    let Some(acme) = &snapshot.acme else { return };
    head(
        out,
        "gw_acme_orders_total",
        "counter",
        "orders of certificates by this process, by name and result",
    );
    for (sni, report) in acme.certificates.report(&acme.domains) {
        for (result, n) in [("ok", report.ordered), ("failed", report.failed)] {
            let _ = writeln!(out, "gw_acme_orders_total{{sni=\"{sni}\",result=\"{result}\"}} {n}");
        }
    }
}
