//! Upstreams: which target, over which connection.

pub mod balance;
pub mod connect;
pub mod dns;
pub mod pool;
pub mod target;
