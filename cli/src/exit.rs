//! Every exit code, documented once.

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// All fine.
    Ok = 0,
    /// Findings: errors in a config, a failed test or assertion, a difference.
    Findings = 1,
    /// Wrong usage or unreadable input.
    Usage = 2,
    /// The environment refused: bind, connect, permission.
    Environment = 3,
    /// A benchmark whose result is invalid.
    Invalid = 4,
}

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error that knows its exit code; without one an error is of usage.
#[derive(Debug)]
pub struct WithCode(pub Code, pub String);

impl std::fmt::Display for WithCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.1)
    }
}

impl std::error::Error for WithCode {}

/// The exit code of an error.
pub fn of(error: &anyhow::Error) -> Code {
    error.chain().find_map(|e| e.downcast_ref::<WithCode>()).map_or(Code::Usage, |w| w.0)
}
