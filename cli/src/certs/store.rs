//! A folder of certificates and keys: `NAME.pem` and `NAME-key.pem`. Nothing is overwritten unless asked for, keys are
//! readable by their owner alone from the first byte, and a file is either whole or absent.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::Pair;
use crate::exit::{Code, WithCode};

/// See the module.
pub struct Store {
    folder: PathBuf,
    /// Whether existing files may be replaced.
    force: bool,
}

impl Store {
    /// The folder need not exist.
    pub fn new(folder: impl Into<PathBuf>, force: bool) -> Self {
        Self { folder: folder.into(), force }
    }

    /// Where the certificate of this name is.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pem"))
    }

    /// Where the key of this name is.
    pub fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}-key.pem"))
    }

    /// Whether certificate or key are there.
    pub fn has(&self, name: &str) -> bool {
        self.certificate(name).exists() || self.key(name).exists()
    }

    /// Fails if writing this pair would overwrite something that must not be.
    pub fn check_free(&self, name: &str) -> anyhow::Result<()> {
        [self.certificate(name), self.key(name)].iter().try_for_each(|path| self.check_absent(path))
    }

    fn check_absent(&self, path: &Path) -> anyhow::Result<()> {
        if self.force || path.symlink_metadata().is_err() {
            return Ok(());
        }
        let message = format!(
            "`{}` exists already; use `--force` to replace it or `--out` for another folder",
            path.display()
        );
        Err(WithCode(Code::Usage, message).into())
    }

    /// Reads a pair.
    pub fn read(&self, name: &str) -> anyhow::Result<Pair> {
        let read = |path: PathBuf| std::fs::read_to_string(&path).map_err(|e| cannot("read", &path, &e));
        Ok(Pair { certificate: read(self.certificate(name))?, key: read(self.key(name))? })
    }

    /// Writes a pair, the key first: a certificate never stands there without its key.
    pub fn write(&self, name: &str, pair: &Pair) -> anyhow::Result<()> {
        self.check_free(name)?;
        self.make_folder()?;
        let (key, certificate) = (self.key(name), self.certificate(name));
        let existed = key.exists();
        self.put(&key, 0o600, pair.key.as_bytes()).map_err(|e| cannot("write", &key, &e))?;
        self.put(&certificate, 0o644, pair.certificate.as_bytes()).map_err(|e| {
            if !existed {
                let _ = std::fs::remove_file(&key);
            }
            cannot("write", &certificate, &e)
        })
    }

    /// Writes files that only their owner may read beside the pairs, in this order; nothing if one of them is in the way.
    pub fn write_private(&self, files: &[(&str, &[u8])]) -> anyhow::Result<()> {
        files.iter().try_for_each(|(file, _)| self.check_absent(&self.file(file)))?;
        files.iter().try_for_each(|(file, content)| {
            let path = self.file(file);
            self.put(&path, 0o600, content).map_err(|e| cannot("write", &path, &e))
        })
    }

    /// Where another file is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn make_folder(&self) -> anyhow::Result<()> {
        if self.folder.is_dir() {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|e| cannot("create", &self.folder, &e))?;
        // Keys do not belong into a repository.
        let ignore = self.folder.join(".gitignore");
        std::fs::write(&ignore, "*\n").map_err(|e| cannot("write", &ignore, &e))
    }

    /// Writes beside the target and then gives the file its name.
    fn put(&self, target: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = target.with_file_name(name);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            if self.force {
                return std::fs::rename(&temporary, target);
            }
            // Unlike a rename, a link never replaces what somebody else has put there meanwhile.
            std::fs::hard_link(&temporary, target)?;
            std::fs::remove_file(&temporary)
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }
}

fn cannot(verb: &str, path: &Path, error: &io::Error) -> anyhow::Error {
    let code = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::AlreadyExists => Code::Usage,
        _ => Code::Environment,
    };
    WithCode(code, format!("cannot {verb} `{}`: {error}", path.display())).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn pair(text: &str) -> Pair {
        Pair { certificate: format!("cert {text}"), key: format!("key {text}") }
    }

    #[test]
    fn nothing_is_overwritten_unasked_and_keys_are_private() {
        let folder = std::env::temp_dir().join(format!("gw-store-{}", uuid::Uuid::new_v4()));
        let inner = folder.join("certs");
        let store = Store::new(&inner, false);
        store.write("a", &pair("1")).expect("the folder is made");
        let error = store.write("a", &pair("2")).expect_err("it is there").to_string();
        assert!(error.contains("a.pem` exists already"), "{error}");
        assert_eq!(store.read("a").expect("it is there").key, "key 1");
        std::fs::remove_file(store.certificate("a")).expect("it is there");
        assert!(store.write("a", &pair("2")).is_err(), "the key alone is in the way too");
        Store::new(&inner, true).write("a", &pair("3")).expect("it is replaced");
        assert_eq!(store.read("a").expect("it is there").certificate, "cert 3");
        let mode = |p: &Path| std::fs::metadata(p).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode(&store.key("a")), 0o600);
        assert_eq!(mode(&inner), 0o700);
        let names: Vec<_> = std::fs::read_dir(&inner)
            .expect("it is there")
            .map(|e| e.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        assert_eq!(names.len(), 3, "{names:?}");
        let error = store.read("b").err().expect("there is none");
        assert_eq!(crate::exit::of(&error), Code::Usage);
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
