//! `certificates`, `snis` and `ca_certificates`.

use crate::diag::{Diagnostic, codes};
use crate::model::lower::{Lower, Parent, id_or, required};
use crate::model::schema::{Field, Kind, TEXT, entity_fields};
use crate::model::{CaCertificate, Certificate, Sni, ids};
use crate::source::Spanned;
use crate::yaml::{Node, Value};

/// The fields of a certificate.
pub const FIELDS: &[Field] = entity_fields![
    Field::new("cert", TEXT, "The certificate chain as PEM, the server's own certificate first.").required(),
    Field::new("key", TEXT, "The private key of the certificate as PEM.").required().secret(),
    Field::new("cert_alt", TEXT, "A second chain with another kind of key (RSA beside ECDSA)."),
    Field::new("key_alt", TEXT, "The private key of `cert_alt`.").secret(),
];

/// Lists that may stand in a certificate.
pub const NESTED: &[&str] = &["snis"];

/// The fields of a server name.
pub const SNI_FIELDS: &[Field] = entity_fields![
    Field::new("name", TEXT, "The server name, unique; `*.name` and `name.*` stand for many.").required(),
    Field::new(
        "certificate",
        Kind::Ref("certificates"),
        "The certificate that is shown for the name, by id."
    ),
];

/// The fields of a CA certificate.
pub const CA_FIELDS: &[Field] = entity_fields![
    Field::new("cert", TEXT, "One certificate of an authority, as PEM.").required(),
    Field::new("cert_digest", TEXT, "Its SHA-256, which is computed anyway."),
];

pub(in crate::model) fn lower(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>, index: usize) {
    let read = cx.reader.entity(node, FIELDS, NESTED, "a certificate");
    let record = &read.record;
    for (one, other) in [("cert_alt", "key_alt"), ("key_alt", "cert_alt")] {
        if let (Some(given), None) = (record.get(one), node.get(other)) {
            let message = format!(
                "all or none of these fields must be set: 'cert_alt', 'key_alt'; `{other}` is missing"
            );
            cx.report(Diagnostic::new(&codes::MISSING_ALTERNATIVE, given.key, message));
        }
    }
    let id = id_or(record, || ids::positional("certificates", "", index));
    cx.model.certificates.push(Certificate {
        span: node.head(),
        id,
        cert: required(record, "cert"),
        key: required(record, "key"),
        cert_alt: record.spanned_str("cert_alt"),
        key_alt: record.spanned_str("key_alt"),
    });
    cx.children(read.children, Parent::Certificate(cx.model.certificates.len() - 1));
}

pub(in crate::model) fn lower_sni(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>, parent: Parent) {
    // The admin interface shows nested names as bare texts, and many write them so.
    if let (Value::Scalar(scalar), Some(parent)) = (&node.value, parent.certificate()) {
        let name = Spanned::new(scalar.text.clone().into_owned(), node.span);
        cx.model.snis.push(Sni {
            span: node.span,
            name,
            certificate: Some(crate::model::Ref::Parent(parent)),
        });
        return;
    }
    let record = cx.reader.record(node, SNI_FIELDS, "a server name");
    let certificate = cx.reference(&record, "certificate", parent.certificate());
    if certificate.is_none()
        && node.get("certificate").is_none_or(Node::is_null)
        && !node.entries().is_empty()
    {
        cx.report(Diagnostic::new(
            &codes::MISSING_FIELD,
            node.head(),
            "required field missing: `certificate`",
        ));
    }
    cx.model.snis.push(Sni { span: node.head(), name: required(&record, "name"), certificate });
}

pub(in crate::model) fn lower_ca(cx: &mut Lower<'_, '_, '_>, node: &Node<'_>, index: usize) {
    let record = cx.reader.record(node, CA_FIELDS, "a CA certificate");
    let id = id_or(&record, || ids::positional("ca_certificates", "", index));
    cx.model.ca_certificates.push(CaCertificate { span: node.head(), id, cert: required(&record, "cert") });
}
