//! `gw token inspect`: what a token says, which is not what is true.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use gw_runtime::token::claims::Moment;
use gw_runtime::{clock, token};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::print;
use super::source::Source;
use crate::certs::inspect::date_time;
use crate::exit::{Code, WithCode};

/// Arguments of `gw token inspect`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// More lenient than the gateway: something can be seen of a broken token too.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Claims that are moments.
const TIMES: &[(&str, &str)] =
    &[("iat", "issued"), ("nbf", "not before"), ("exp", "expires"), ("auth_time", "authenticated")];

/// A token taken apart.
struct Parts {
    header: Value,
    claims: Value,
    signature_bytes: Option<usize>,
    /// What the gateway would object to when decoding it.
    objection: Option<String>,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Code> {
    let text = args.source.read()?;
    let parts = take_apart(&text).map_err(|e| WithCode(Code::Usage, e))?;
    let now = clock::unix_s();
    print(&if args.json { as_json(&parts, now) } else { as_text(&parts, now) })?;
    Ok(Code::Ok)
}

fn take_apart(text: &str) -> Result<Parts, String> {
    let parts: Vec<&str> = text.split('.').collect();
    match parts.len() {
        0..=1 => return Err("this is no token: a token has three parts with dots between them".into()),
        5 => {
            return Err(
                "this is an encrypted token (JWE), of which only the recipient sees the claims".into()
            );
        }
        _ => {}
    }
    let decode = |what: &str, part: &str| -> Result<Value, String> {
        let bytes = LENIENT.decode(part).map_err(|_| format!("the {what} is not base64url"))?;
        serde_json::from_slice(&bytes).map_err(|e| format!("the {what} is not JSON: {e}"))
    };
    Ok(Parts {
        header: decode("header", parts[0])?,
        claims: decode("payload", parts[1])?,
        signature_bytes: parts.get(2).and_then(|s| LENIENT.decode(s).ok()).map(|s| s.len()),
        objection: token::parse(text.as_bytes(), token::MAX_TOKEN).err().map(|e| format!("Bad token; {e}")),
    })
}

fn as_text(parts: &Parts, now: u64) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "header\n{}", indented(&parts.header));
    let _ = writeln!(out, "claims\n{}", indented(&parts.claims));
    let times = times(&parts.claims);
    if !times.is_empty() {
        out.push_str("times\n");
    }
    for (word, at) in times {
        let _ = writeln!(out, "  {word:<14} {}", Moment::At(at).shown(now));
    }
    let signature = match parts.signature_bytes {
        None => "missing or not base64url".to_owned(),
        Some(0) => "empty".to_owned(),
        Some(bytes) => format!("{bytes} bytes, not checked"),
    };
    let _ = writeln!(out, "signature\n  {signature}");
    if let Some(objection) = &parts.objection {
        let _ = writeln!(out, "note: the gateway answers `{objection}`");
    }
    out
}

fn as_json(parts: &Parts, now: u64) -> String {
    let times: serde_json::Map<String, Value> = TIMES
        .iter()
        .filter_map(|(claim, _)| {
            let at = parts.claims.get(claim)?.as_f64()?;
            Some(((*claim).to_owned(), json!({ "at": moment(at), "seconds_from_now": at - now as f64 })))
        })
        .collect();
    let value = json!({
        "schema": "gw.token",
        "version": 1,
        "header": parts.header,
        "claims": parts.claims,
        "times": times,
        "signature_bytes": parts.signature_bytes,
        "signature_checked": false,
        "objection": parts.objection,
    });
    format!("{value:#}\n")
}

fn indented(value: &Value) -> String {
    format!("{value:#}").lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn times(claims: &Value) -> Vec<(&'static str, f64)> {
    TIMES.iter().filter_map(|(claim, word)| Some((*word, claims.get(claim)?.as_f64()?))).collect()
}

/// A moment in UTC, or the number itself where no calendar reaches.
fn moment(at: f64) -> String {
    // Beyond i64 the cast saturates, and such a moment is out of the calendar's range anyway.
    OffsetDateTime::from_unix_timestamp(at.floor() as i64).map_or_else(|_| at.to_string(), date_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_taken_apart_and_never_called_good() {
        let part = |v: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(v.to_string());
        let token = |header: Value, claims: Value| format!("{}.{}.AAAA", part(header), part(claims));
        let show = |t: &str| take_apart(t).map(|p| as_text(&p, 1_700_000_000));

        let text = show(&token(json!({"alg": "HS256"}), json!({"exp": 1_700_003_600, "iat": 1_699_999_970})));
        let text = text.expect("it decodes");
        for want in [
            "expires        2023-11-14T23:13:20Z (in 60 minutes)",
            "(30 seconds ago)",
            "3 bytes, not checked",
        ] {
            assert!(text.contains(want), "{text}");
        }
        assert!(!text.contains("valid") && !text.contains("note"), "{text}");

        let none = show(&token(json!({"alg": "none"}), json!({"exp": 1e300}))).expect("it decodes");
        assert!(none.contains("Bad token; invalid alg") && none.contains("in "), "{none}");
        for (bad, want) in
            [("abc", "three parts"), ("a.b.c.d.e", "JWE"), ("!.e30.", "header is not base64url")]
        {
            let error = show(bad).expect_err(bad);
            assert!(error.contains(want), "{error}");
        }
    }
}
