//! Where account, keys and certificates are kept: a folder, or a Redis that several gateways share.

mod folder;
mod redis;

use std::time::Duration;

use crate::acme::state::Pending;
use crate::acme::{Acme, Storage as Kind};
use folder::Folder;
use redis::Shared;

/// How long a lock lasts whose holder says nothing more; no order takes longer.
pub const LOCK: Duration = Duration::from_secs(360);

/// One ACME server's part of a storage.
pub enum Storage {
    Folder(Folder),
    Redis(Shared),
}

/// The right to order one certificate. A folder's ends with the process; one in Redis after [`LOCK`].
pub struct Lock {
    domain: String,
    kind: Held,
}

enum Held {
    /// Locked as long as the file is open.
    File(#[expect(dead_code, reason = "it is held, not used")] std::fs::File),
    Token(String),
}

/// What is new since the last look.
#[derive(Default)]
pub struct News {
    /// Certificates may have changed.
    pub certificates: bool,
    /// All challenges that other gateways have pending; `None` where there are no others.
    pub pending: Option<Vec<Pending>>,
}

/// What a storage says. Errors are for log lines; they hold nothing secret.
pub type Said<T> = Result<T, String>;

impl Storage {
    /// Opens it. Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// The folder cannot be made or used.
    pub fn open(acme: &Acme) -> Said<Self> {
        match &acme.storage {
            Kind::Folder(path) => Folder::open(&path.join(acme.place())).map(Self::Folder),
            Kind::Redis(settings) => Ok(Self::Redis(Shared::open(settings, &acme.place()))),
        }
    }

    /// Whether other gateways may be asked to prove what this one orders.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    /// What is new.
    pub async fn look(&self) -> Said<News> {
        match self {
            Self::Folder(_) => Ok(News::default()),
            Self::Redis(shared) => shared.look().await,
        }
    }

    /// Key and chain for a name, in PEM.
    pub async fn certificate(&self, domain: &str) -> Said<Option<String>> {
        match self {
            Self::Folder(folder) => folder.read(&format!("{domain}.pem")),
            Self::Redis(shared) => shared.read(&format!("certificate:{domain}")).await,
        }
    }

    /// Keeps key and chain.
    pub async fn keep_certificate(&self, domain: &str, pem: &str) -> Said<()> {
        match self {
            Self::Folder(folder) => folder.write(&format!("{domain}.pem"), pem),
            Self::Redis(shared) => shared.keep_certificate(domain, pem).await,
        }
    }

    /// The account, as [`crate::acme::account::Account`] writes it.
    pub async fn account(&self) -> Said<Option<String>> {
        match self {
            Self::Folder(folder) => folder.read("account.json"),
            Self::Redis(shared) => shared.read("account").await,
        }
    }

    /// Keeps the account.
    pub async fn keep_account(&self, text: &str) -> Said<()> {
        match self {
            Self::Folder(folder) => folder.write("account.json", text),
            Self::Redis(shared) => shared.write("account", text).await,
        }
    }

    /// Takes the right to order a certificate for a name; `None` if another has it.
    pub async fn lock(&self, domain: &str) -> Said<Option<Lock>> {
        let kind = match self {
            Self::Folder(folder) => folder.lock(&format!("{domain}.lock"))?.map(Held::File),
            Self::Redis(shared) => shared.lock(domain).await?.map(Held::Token),
        };
        Ok(kind.map(|kind| Lock { domain: domain.to_owned(), kind }))
    }

    /// Gives the right back; with `rest` nobody else takes it before that is over.
    pub async fn unlock(&self, lock: Lock, rest: Option<Duration>) {
        if let (Self::Redis(shared), Held::Token(token)) = (self, &lock.kind) {
            // It ends by itself if this fails.
            let _ = shared.unlock(&lock.domain, token, rest).await;
        }
    }

    /// Tells the others of a challenge.
    pub async fn publish(&self, pending: &Pending) -> Said<()> {
        match self {
            Self::Folder(_) => Ok(()),
            Self::Redis(shared) => shared.publish(pending).await,
        }
    }

    /// The challenge for this name is over.
    pub async fn withdraw(&self, domain: &str) {
        if let Self::Redis(shared) = self {
            // It ends by itself if this fails.
            let _ = shared.withdraw(domain).await;
        }
    }
}
