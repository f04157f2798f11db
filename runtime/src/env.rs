//! What a config may read from its surroundings: environment variables and files.
//!
//! It is passed in, so that the same passes run without any surroundings (`--offline`, tests).

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::source::FileId;

/// The surroundings of a run.
#[derive(Clone, Debug, Default)]
pub struct Env {
    system_vars: bool,
    files: bool,
    vars: BTreeMap<String, String>,
}

impl Env {
    /// The process's own environment and the file system.
    pub fn system() -> Self {
        Self { system_vars: true, files: true, vars: BTreeMap::new() }
    }

    /// No variable is set and no file can be read.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The same surroundings without files.
    #[must_use]
    pub fn without_files(mut self) -> Self {
        self.files = false;
        self
    }

    /// Sets a variable over whatever the system says.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    /// The value of a variable; one that is not Unicode counts as unset.
    pub fn var(&self, name: &str) -> Option<String> {
        match self.vars.get(name) {
            Some(value) => Some(value.clone()),
            None if self.system_vars && is_name(name) => std::env::var(name).ok(),
            None => None,
        }
    }

    /// Whether files can be read at all.
    pub fn has_files(&self) -> bool {
        self.files
    }

    /// The content of a file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if self.files {
            std::fs::read(path)
        } else {
            Err(io::Error::new(io::ErrorKind::Unsupported, "files are not read in this run"))
        }
    }
}

/// Files that plugins name, found from where the file of the config that names them stands.
#[derive(Clone, Debug, Default)]
pub struct Files {
    env: Env,
    folders: HashMap<FileId, PathBuf>,
    /// A file that cannot be read is a warning.
    optional: bool,
}

impl Files {
    /// Reads nothing yet. `optional` is what [`crate::front::LoadOptions::allow_missing_files`] says.
    pub fn new(env: &Env, optional: bool) -> Self {
        Self { env: env.clone(), folders: HashMap::new(), optional }
    }

    /// Says what a file of the config is called, and so which folder it is in.
    pub fn add(&mut self, file: FileId, name: &str) {
        let folder = Path::new(name).parent().unwrap_or_else(|| Path::new("")).to_owned();
        self.folders.insert(file, folder);
    }

    /// Where a path stands that is written in a file of the config.
    pub fn locate(&self, file: FileId, path: &str) -> PathBuf {
        self.folders.get(&file).map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    /// Whether files are read in this run.
    pub fn are_read(&self) -> bool {
        self.env.has_files()
    }

    /// Whether what cannot be read is no more than a warning.
    pub fn are_optional(&self) -> bool {
        self.optional
    }

    /// The text of a file of at most `limit` bytes.
    ///
    /// # Errors
    /// It cannot be read, is longer (`FileTooLarge`), or is not UTF-8 (`InvalidData`).
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<String> {
        if !self.env.files {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "files are not read in this run"));
        }
        let mut text = String::new();
        std::fs::File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
        if text.len() as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it is longer than {limit} bytes"),
            ));
        }
        Ok(text)
    }
}

/// Why a file cannot be read, in the words of a message.
pub fn unread(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    }
}

/// `std::env::var` must not be given a name with `=` or NUL.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_environment_has_neither_variables_nor_files() {
        let env = Env::empty().with("A", "1");
        assert_eq!(env.var("A").as_deref(), Some("1"));
        assert_eq!(env.var("PATH"), None);
        assert!(env.read(Path::new("/dev/null")).is_err());
        assert!(Env::system().var("PATH").is_some());
        assert_eq!(Env::system().var("A=B"), None);
    }
}
