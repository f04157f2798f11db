//! Compression of fields (RFC 7541). Both tables are bounded by what a connection starts with, 4 KiB.

mod decode;
mod encode;
pub mod huffman;
mod integer;
mod static_table;

pub use decode::{Decoder, Field, Kind, Malformed};
pub use encode::Encoder;

/// Bytes of a table on either side, as every connection starts.
pub const TABLE: usize = 4096;
/// What each entry counts beside its name and value.
const OVERHEAD: usize = 32;
