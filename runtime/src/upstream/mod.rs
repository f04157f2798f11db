//! Upstreams: which target, over which connection.

pub mod balance;
pub mod connect;
pub mod dns;
pub mod h2;
pub mod health_view;
pub mod pool;
pub mod probe;
pub mod public;
pub mod retry_budget;
pub mod rings;
pub mod target;
pub mod unix;
