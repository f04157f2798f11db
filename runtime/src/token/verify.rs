//! Verifying a token.

/// A key that verifies tokens of one algorithm, prepared at load.
#[derive(Clone, Debug, Default)]
pub struct Key {}
