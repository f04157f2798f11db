//! One file an output format: diagnostics to text. Filled by `gw validate`.
