//! Upstreams: which target, over which connection.

pub mod balance;
