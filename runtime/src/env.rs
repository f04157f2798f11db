//! What a config may read from its surroundings: environment variables and files.
//!
//! It is passed in, so that the same passes run without any surroundings (`--offline`, tests).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

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
