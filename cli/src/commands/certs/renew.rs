//! `gw certs renew`.

use std::path::Path;

use time::OffsetDateTime;

use super::{Renew, make};
use crate::certs::inspect::{self, Description};
use crate::certs::store::Store;
use crate::certs::{self, Request};
use crate::exit::{Code, WithCode};

/// What has fewer days left is renewed.
const DUE_DAYS: i64 = 30;

pub fn run(args: &Renew) -> anyhow::Result<Code> {
    let store = Store::new(&args.out, true);
    let names = if args.names.is_empty() { names_in(&args.out)? } else { args.names.clone() };
    let ca = store.read(make::CA)?;
    let now = OffsetDateTime::now_utc();
    for name in &names {
        let old = store.read(name)?;
        let old = inspect::describe(&old.certificate)?.remove(0);
        let left = old.days_left(now);
        if left > DUE_DAYS && !args.force {
            println!("{}: {left} days left, nothing to do", store.certificate(name).display());
            continue;
        }
        let pair = certs::issue(&ca, &again(&old, name)?, now)?;
        store.write(name, &pair)?;
        make::report(&store, name, &pair)?;
    }
    if names.is_empty() {
        println!("`{}` has no certificate besides the authority's", args.out.display());
    }
    Ok(Code::Ok)
}

/// The same certificate once more.
fn again(old: &Description, name: &str) -> anyhow::Result<Request> {
    let Some(purpose) = old.purpose() else {
        let message = format!("`{name}` is neither a server's nor a client's certificate");
        return Err(WithCode(Code::Usage, message).into());
    };
    let days = (old.not_after - old.not_before).whole_days();
    let days = u32::try_from(days).unwrap_or(certs::LEAF_DAYS).clamp(1, certs::MAX_LEAF_DAYS);
    let mut names = old.names.clone();
    // What a client is called by may stand in its common name alone.
    let own = old.common_name.iter().filter(|cn| purpose == certs::Purpose::Client && !names.contains(cn));
    names.extend(own.cloned().collect::<Vec<_>>());
    Ok(Request { purpose, names, days })
}

/// Names of the pairs in a folder.
fn names_in(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)
        .map_err(|e| WithCode(Code::Usage, format!("cannot read `{}`: {e}", folder.display())))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("");
        let is_pair = path.extension().is_some_and(|e| e == "pem")
            && path.with_file_name(format!("{stem}-key.pem")).exists();
        if is_pair && !make::is_ca(&path) {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
