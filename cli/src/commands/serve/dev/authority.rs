//! The development authority: the one that `gw certs init` made in this folder, else one of the user's own that stays the
//! same from run to run, so that it has to be trusted only once.

use std::path::{Path, PathBuf};

use gw_runtime::model::Model;
use gw_runtime::tls::PemPair;
use time::OffsetDateTime;

use crate::certs::store::Store;
use crate::certs::{self, LEAF_DAYS, Pair, Purpose, Request};

/// An authority and where its certificate lies.
pub struct Authority {
    pair: Pair,
    path: PathBuf,
}

const NAME: &str = "ca";

impl Authority {
    /// See the module.
    pub fn find_or_make() -> anyhow::Result<Self> {
        let mut folders = vec![PathBuf::from("certs"), std::env::temp_dir().join(temporary())];
        folders.splice(1..1, own_folder());
        let stores: Vec<Store> = folders.iter().map(|f| Store::new(f, false)).collect();
        let existing = folders.iter().zip(&stores).filter(|(folder, _)| is_own(folder));
        let existing = existing.map(|(_, s)| s).find_map(|s| Some((s, s.read(NAME).ok().filter(is_good)?)));
        if let Some((store, pair)) = existing {
            return Ok(Self { pair, path: store.certificate(NAME) });
        }
        let pair = certs::authority(OffsetDateTime::now_utc(), None)?;
        let mut last = None;
        // Nothing is written into the working folder unasked; where home cannot be written, /tmp must do.
        for folder in folders.iter().skip(1) {
            let store = Store::new(folder, true);
            match store.write(NAME, &pair) {
                Ok(()) => return Ok(Self { path: store.certificate(NAME), pair }),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("there is no folder for a development authority")))
    }

    /// The certificate to trust.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A certificate for this machine and every host that the config's routes name.
    pub fn certificate_for(&self, model: &Model) -> anyhow::Result<PemPair> {
        let named = model.routes.iter().flat_map(|r| r.hosts.iter().chain(&r.snis));
        let hosts: Vec<String> = named
            .map(|h| h.value.split_once(':').map_or(h.value.as_str(), |(host, _)| host).to_owned())
            .filter(|h| certs::is_certifiable(h))
            .collect();
        let names = certs::server_names(&hosts);
        let request = Request { purpose: Purpose::Server, names, days: LEAF_DAYS };
        let made = certs::issue(&self.pair, &request, OffsetDateTime::now_utc())?;
        Ok((made.certificate, made.key))
    }
}

/// `$XDG_DATA_HOME/gw`, else `~/.local/share/gw`.
fn own_folder() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let data = var("XDG_DATA_HOME").or_else(|| Some(var("HOME")?.join(".local/share")))?;
    Some(data.join("gw"))
}

/// The folder's name below the temporary directory.
fn temporary() -> String {
    format!("gw-{}", rustix::process::getuid().as_raw())
}

/// Another user's folder of a guessable name must not be taken for one's own.
fn is_own(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(folder).is_ok_and(|m| m.uid() == rustix::process::getuid().as_raw())
}

fn is_good(pair: &Pair) -> bool {
    let described = certs::inspect::describe(&pair.certificate);
    described
        .is_ok_and(|all| all.first().is_some_and(|d| d.is_ca && d.days_left(OffsetDateTime::now_utc()) >= 1))
}
