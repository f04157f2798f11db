//! `gw explain config`: every setting of the gateway that is in force, and who says so.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use clap::Parser as _;
use gw_runtime::model::gateway_read::FIELDS;
use gw_runtime::model::schema::{Field, Kind, Record, RecordField, Val};
use gw_runtime::policy::redis_settings;

use super::loaded::Loaded;
use crate::commands::serve;
use crate::exit::{Code, WithCode};

/// `gw serve`'s flags by themselves.
#[derive(clap::Parser, Debug)]
#[command(name = "gw serve", no_binary_name = true)]
struct Serve {
    #[command(flatten)]
    args: serve::Args,
}

/// Settings that flags decide, and their values.
pub fn flags(file: &Path, flags: &[OsString]) -> Result<Vec<(&'static str, String)>, WithCode> {
    let words = flags.iter().cloned().chain([file.as_os_str().to_owned()]);
    let serve = Serve::try_parse_from(words).map_err(|e| WithCode(Code::Usage, e.to_string()))?.args;
    let mut said = Vec::new();
    let mut listeners: Vec<String> = serve.listen.iter().map(ToString::to_string).collect();
    listeners.extend(serve.listen_tls.iter().map(|a| format!("{a} ssl")));
    let list = |items: Vec<String>| items.join(", ");
    if !listeners.is_empty() {
        said.push(("listeners", list(listeners)));
    }
    if !serve.trusted_ip.is_empty() {
        said.push(("trusted_ips", list(serve.trusted_ip.iter().map(ToString::to_string).collect())));
    }
    said.extend(serve.workers.map(|n| ("workers", n.to_string())));
    said.extend(serve.admin.map(|a| ("admin", a.to_string())));
    said.extend(serve.access_log.map(|a| ("access_log", a)));
    said.extend(serve.tls_cert.map(|c| ("tls.cert", c.display().to_string())));
    said.extend(serve.tls_key.map(|k| ("tls.key", k.display().to_string())));
    if let Some(flavor) = serve.router_flavor {
        use clap::ValueEnum as _;
        said.extend(flavor.to_possible_value().map(|v| ("router_flavor", v.get_name().to_owned())));
    }
    Ok(said)
}

/// One line a setting: name, value, source.
pub fn render(loaded: &Loaded, flags: &[(&str, String)]) -> String {
    let mut rows = Vec::new();
    let gateway = &loaded.model.gateway;
    let listeners: Vec<String> =
        gateway.listeners.iter().map(|l| format!("{}{}", l.addr, if l.tls { " ssl" } else { "" })).collect();
    let (listeners, source) = match listeners.is_empty() {
        true => ("0.0.0.0:8000".to_owned(), "default".to_owned()),
        false => (listeners.join(", "), loaded.place(loaded.model.gateway_record.span)),
    };
    rows.push(("listeners".to_owned(), listeners, source));
    let redis = redis_settings::of_gateway(&loaded.model, &mut Vec::new());
    // Its text has no login in it.
    let shown = redis.map_or("none".to_owned(), |settings| settings.to_string());
    let source = gateway.redis.as_ref().map_or("default".to_owned(), |r| loaded.place(r.span));
    rows.push(("redis".to_owned(), shown, source));
    settings(loaded, FIELDS, Some(&loaded.model.gateway_record), "", &mut rows);
    for (name, value) in flags {
        if let Some(row) = rows.iter_mut().find(|r| r.0 == *name) {
            row.1.clone_from(value);
            "flag".clone_into(&mut row.2);
        }
    }
    for (at, service) in loaded.model.services.iter().enumerate() {
        let name = service.name.as_ref().map_or(service.id.as_str(), |n| n.value.as_str());
        let place = loaded.place(service.span);
        let written = &loaded.model.services[at];
        for (field, value, default, unit) in [
            ("connect_timeout", written.connect_timeout, 60_000, " ms"),
            ("write_timeout", written.write_timeout, 60_000, " ms"),
            ("read_timeout", written.read_timeout, 60_000, " ms"),
            ("retries", u64::from(written.retries), 5, ""),
        ] {
            let source = if value == default { "default".to_owned() } else { place.clone() };
            rows.push((format!("services.{name}.{field}"), format!("{value}{unit}"), source));
        }
    }
    let width = |column: fn(&(String, String, String)) -> usize| rows.iter().map(column).max().unwrap_or(0);
    let (names, values) = (width(|r| r.0.len()), width(|r| r.1.len()));
    let mut out = String::new();
    for (name, value, source) in &rows {
        // Writing to a text does not fail.
        let _ = writeln!(out, "{name:<names$}  {value:<values$}  {source}");
    }
    out
}

fn settings(
    loaded: &Loaded,
    fields: &'static [Field],
    record: Option<&Record>,
    prefix: &str,
    rows: &mut Vec<(String, String, String)>,
) {
    for field in fields {
        let name = format!("{prefix}{}", field.name);
        let given = record.and_then(|r| r.get(field.name));
        if let Kind::Record(inner) = field.kind {
            let record = record.and_then(|r| r.record(field.name));
            settings(loaded, inner, record, &format!("{name}."), rows);
            continue;
        }
        let (value, source) = match given {
            Some(RecordField { value, given: true, .. }) => {
                // What the environment says is shown by its name.
                let masked = loaded.model.masked.get(&value.span).cloned();
                let masked = masked.or_else(|| field.secret.then(|| "set (not shown)".to_owned()));
                (masked.unwrap_or_else(|| shown(&value.value)), loaded.place(value.span))
            }
            _ => {
                let default = field.default.unwrap_or("none").trim_matches('"');
                let plain =
                    default.trim_start_matches('[').trim_end_matches(']').replace('"', "").replace(',', ", ");
                (if plain.is_empty() { "none".to_owned() } else { plain }, "default".to_owned())
            }
        };
        rows.push((name, value, source));
    }
}

fn shown(value: &Val) -> String {
    match value {
        Val::Null => "none".to_owned(),
        Val::Bool(b) => b.to_string(),
        Val::Int(n) => n.to_string(),
        Val::Num(n) => n.to_string(),
        Val::Str(text) => text.clone(),
        Val::List(items) if items.is_empty() => "none".to_owned(),
        Val::List(items) => items.iter().map(|i| shown(&i.value)).collect::<Vec<_>>().join(", "),
        Val::Map(_) | Val::Record(_) => "set".to_owned(),
    }
}
