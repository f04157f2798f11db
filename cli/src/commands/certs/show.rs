//! `gw certs show`.

use std::path::Path;

use serde_json::json;
use time::OffsetDateTime;

use super::Show;
use crate::certs::inspect::{self, Description};
use crate::exit::{Code, WithCode};

pub fn run(args: &Show) -> anyhow::Result<Code> {
    let text = read(&args.file)?;
    let found = inspect::describe(&text)
        .map_err(|e| WithCode(Code::Usage, format!("`{}`: {e:#}", args.file.display())))?;
    let now = OffsetDateTime::now_utc();
    if args.json {
        let value = json!({ "schema": "gw.certs", "version": 1, "certificates": found });
        println!("{value:#}");
        return Ok(Code::Ok);
    }
    for (i, certificate) in found.iter().enumerate() {
        if i > 0 {
            println!();
        }
        print(certificate, now);
    }
    if text.contains("PRIVATE KEY-----") {
        println!("\nThe file holds a private key too; it is not shown.");
    }
    Ok(Code::Ok)
}

fn print(c: &Description, now: OffsetDateTime) {
    let or_none = |list: String| if list.is_empty() { "(none)".to_owned() } else { list };
    println!("subject      {}", or_none(c.subject.clone()));
    println!("issuer       {}{}", c.issuer, if c.issuer == c.subject { " (itself)" } else { "" });
    println!("names        {}", or_none(c.names.join(", ")));
    println!("use          {}", if c.is_ca { "authority".to_owned() } else { or_none(c.usages.join(", ")) });
    println!(
        "from         {}{}",
        inspect::date_time(c.not_before),
        if c.not_before > now { " (not yet)" } else { "" }
    );
    println!("until        {} ({})", inspect::date_time(c.not_after), remaining(c, now));
    println!("key          {}", c.key);
    println!("serial       {}", c.serial);
    println!("fingerprint  sha256:{}", c.fingerprint);
}

fn remaining(c: &Description, now: OffsetDateTime) -> String {
    match c.days_left(now) {
        _ if c.not_after < now => "expired".to_owned(),
        0 => "less than a day left".to_owned(),
        1 => "1 day left".to_owned(),
        days => format!("{days} days left"),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    Ok(text.map_err(|e| WithCode(Code::Usage, format!("cannot read `{}`: {e}", path.display())))?)
}
