//! Choosing a target of an upstream.

/// An upstream as the config describes it.
#[derive(Clone, Debug, Default)]
pub struct UpstreamConfig {
    pub name: String,
}
