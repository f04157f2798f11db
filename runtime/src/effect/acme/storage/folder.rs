//! A folder: files that only gw's user may read, each replaced at once.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Said;

/// Longest file that is read.
const FILE_MAX: u64 = 1024 * 1024;

/// One ACME server's folder.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it, with its parents, where it is missing.
    pub fn open(path: &Path) -> Said<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|e| format!("cannot make the folder `{}`: {e}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// A file's text; `None` if there is no such file.
    pub fn read(&self, name: &str) -> Said<Option<String>> {
        let path = self.0.join(name);
        let failed = |e: std::io::Error| format!("cannot read `{}`: {e}", path.display());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let mut text = String::new();
        file.take(FILE_MAX).read_to_string(&mut text).map_err(failed)?;
        Ok(Some(text))
    }

    /// Replaces a file: whoever reads it finds the old text or the new one, also after a crash.
    pub fn write(&self, name: &str, text: &str) -> Said<()> {
        let (path, new) = (self.0.join(name), self.0.join(format!("{name}.new")));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&new, &path))
            .and_then(|()| File::open(&self.0)?.sync_all());
        written.map_err(|e| format!("cannot write `{}`: {e}", path.display()))
    }

    /// Locks a file as long as it is open; `None` if another process has it.
    pub fn lock(&self, name: &str) -> Said<Option<File>> {
        let path = self.0.join(name);
        let failed = |e: std::io::Error| format!("cannot lock `{}`: {e}", path.display());
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(e) if e == rustix::io::Errno::WOULDBLOCK => Ok(None),
            Err(e) => Err(failed(e.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_private_and_replaced_whole() {
        let dir = std::env::temp_dir().join(format!("gw-acme-folder-{}", std::process::id()));
        let folder = Folder::open(&dir.join("a.test_directory")).unwrap();
        assert_eq!(folder.read("x.pem").unwrap(), None);
        for text in ["one", "two, which is longer", ""] {
            folder.write("x.pem", text).unwrap();
            assert_eq!(folder.read("x.pem").unwrap().as_deref(), Some(text));
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder.0), mode(&folder.0.join("x.pem"))), (0o700, 0o600));
        assert!(!folder.0.join("x.pem.new").exists());
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(folder.write("x.pem", "x").unwrap_err().starts_with("cannot write `"));
    }

    #[test]
    fn a_lock_has_one_holder_at_a_time() {
        let dir = std::env::temp_dir().join(format!("gw-acme-lock-{}", std::process::id()));
        let folder = Folder::open(&dir).unwrap();
        let held = folder.lock("a.lock").unwrap();
        assert!(held.is_some());
        assert!(folder.lock("a.lock").unwrap().is_none());
        assert!(folder.lock("b.lock").unwrap().is_some());
        drop(held);
        assert!(folder.lock("a.lock").unwrap().is_some());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
