//! The HTTP/2 codec of the client side: bytes to requests, answers to bytes, and all of what lies between (RFC 9113 and
//! 7541).
//!
//! Strict and bounded by design: what a peer can make this keep, send or compute has a limit. Knows no sockets;
//! everything works on buffers, so all of it is tested without I/O.

pub mod connection;
pub mod flood;
pub mod flow;
pub mod frame;
pub mod hpack;
mod receive;
pub mod request;
pub mod send;
pub mod settings;
pub mod stream;

#[cfg(test)]
mod tests;

pub use connection::{Config, Connection, Event};
pub use frame::Code;
pub use stream::Key;
