//! The HTTP/1 codec: bytes to heads and bodies, and back.
//!
//! Strict by design (RFC 9112): what two parsers could read differently is refused. Knows no sockets; everything works
//! on buffers, so all of it is tested without I/O.

pub mod body;
pub mod buffer;
pub mod request;
pub mod response;
pub mod scan;
pub mod trailers;
pub mod write;

pub use body::{BodyDecoder, Decoded};
pub use buffer::Buffer;

/// How a message says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Framing {
    #[default]
    None,
    Length(u64),
    Chunked,
    /// Only in responses.
    UntilClose,
}

/// Why a message cannot be accepted, and the status that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    pub status: u16,
    /// For the log and, where the status allows it, the client.
    pub reason: &'static str,
}

impl Reject {
    /// A malformed message.
    pub const fn bad(reason: &'static str) -> Self {
        Self { status: 400, reason }
    }
}
