//! `gw docs` (hidden): writes the generated part of the documentation, or says what of it is stale.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::exit::Code;
use crate::reference;

/// Arguments of `gw docs`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The folder that the pages are kept in
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Write nothing; exit with 1 if a page is stale
    #[arg(long)]
    check: bool,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<Code> {
    let stale = stale(&args.out);
    if args.check {
        for page in &stale {
            println!("{page}: stale; run `gw docs --out {}`", args.out.display());
        }
        return Ok(if stale.is_empty() { Code::Ok } else { Code::Findings });
    }
    let pages = reference::pages();
    for page in &stale {
        let path = args.out.join(page);
        let context = || format!("cannot write `{}`", path.display());
        match pages.get(page) {
            Some(text) => {
                let folder = path.parent().unwrap_or(&args.out);
                std::fs::create_dir_all(folder)
                    .and_then(|()| std::fs::write(&path, text))
                    .with_context(context)?;
            }
            None => std::fs::remove_file(&path).with_context(context)?,
        }
        println!("{page}");
    }
    Ok(Code::Ok)
}

/// Pages that differ from what the code says, that are missing, or that nothing generates any more.
fn stale(root: &Path) -> BTreeSet<String> {
    let pages = reference::pages();
    let differs = |(page, text): (&String, &String)| {
        let same = std::fs::read_to_string(root.join(page)).is_ok_and(|old| old == *text);
        (!same).then(|| page.clone())
    };
    let mut stale: BTreeSet<String> = pages.iter().filter_map(differs).collect();
    let folders: BTreeSet<&str> =
        pages.keys().filter_map(|p| p.split_once('/')).map(|(folder, _)| folder).collect();
    for folder in folders {
        let files = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        let names = files.map(|f| format!("{folder}/{}", f.file_name().to_string_lossy()));
        stale.extend(names.filter(|name| !pages.contains_key(name)));
    }
    stale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_in_the_repository_are_fresh() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
        let stale = stale(Path::new(root));
        assert!(stale.is_empty(), "run `cargo run -p gw -- docs --out docs`; stale: {stale:#?}");
    }
}
