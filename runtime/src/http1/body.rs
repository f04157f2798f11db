//! Body framing: where a body's bytes are in a buffer, and where they end.

use super::{Buffer, Framing, Reject};

/// Reads one body out of a [`Buffer`].
#[derive(Debug, Clone)]
pub struct BodyDecoder {
    state: State,
    /// Body bytes handed out so far.
    pub received: u64,
    /// The lines after a chunked body, each with its end, once all is read.
    pub trailers: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    /// Before a chunk's size line.
    Size,
    Chunk(u64),
    /// The line end after a chunk's data.
    ChunkEnd,
    /// Lines after the last chunk; so many bytes of them were seen.
    Trailer(usize),
    Done,
}

/// What stands at the start of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// So many bytes of data; consume them when used, then ask again.
    Data(usize),
    /// More must be read first.
    More,
    /// The body is over.
    End,
}

/// Longest chunk-size line, extensions included.
const SIZE_LINE_MAX: usize = 256;
/// Most bytes of trailers.
const TRAILER_MAX: usize = 8 * 1024;

impl BodyDecoder {
    /// A decoder for a message framed so.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None => State::Done,
            Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, received: 0, trailers: Vec::new() }
    }

    /// Whether the whole body was handed out.
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether a body of known length has more than the `n` bytes that are here.
    pub fn wants_more(&self, n: usize) -> bool {
        matches!(self.state, State::Length(left) if left > n as u64)
    }

    /// Whether the peer's closing the connection is a proper end.
    pub fn may_end_at_close(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    /// Looks at the buffer, consuming framing but not data.
    pub fn decode(&mut self, buffer: &mut Buffer) -> Result<Decoded, Reject> {
        loop {
            match self.state {
                State::Done => return Ok(Decoded::End),
                State::Length(n) | State::Chunk(n) => {
                    let here = usize::try_from(n).unwrap_or(usize::MAX).min(buffer.len());
                    return Ok(if here == 0 { Decoded::More } else { Decoded::Data(here) });
                }
                State::UntilClose => {
                    return Ok(if buffer.is_empty() { Decoded::More } else { Decoded::Data(buffer.len()) });
                }
                State::Size => match size_line(buffer.data())? {
                    None => return Ok(Decoded::More),
                    Some((size, used)) => {
                        buffer.consume(used);
                        self.state = if size == 0 { State::Trailer(0) } else { State::Chunk(size) };
                    }
                },
                State::ChunkEnd => match buffer.data() {
                    [b'\r', b'\n', ..] => {
                        buffer.consume(2);
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Decoded::More),
                    _ => return Err(Reject::bad("a chunk is longer than its size says")),
                },
                State::Trailer(seen) => match trailer_line(buffer.data())? {
                    None if seen + buffer.len() > TRAILER_MAX => {
                        return Err(Reject { status: 431, reason: "the trailers are too large" });
                    }
                    None => return Ok(Decoded::More),
                    Some(2) => {
                        buffer.consume(2);
                        self.state = State::Done;
                    }
                    Some(used) => {
                        if seen + used > TRAILER_MAX {
                            return Err(Reject { status: 431, reason: "the trailers are too large" });
                        }
                        self.trailers.extend_from_slice(&buffer.data()[..used]);
                        buffer.consume(used);
                        self.state = State::Trailer(seen + used);
                    }
                },
            }
        }
    }

    /// How many bytes of body follow one another from here, where a length says so.
    pub fn run(&self) -> u64 {
        match self.state {
            State::Length(left) => left,
            _ => 0,
        }
    }

    /// Notes that `n` bytes of [`BodyDecoder::run`] went another way than through a buffer.
    pub fn pass(&mut self, n: usize) {
        self.received += n as u64;
        if let State::Length(left) = &mut self.state {
            *left = left.saturating_sub(n as u64);
            if *left == 0 {
                self.state = State::Done;
            }
        }
    }

    /// Takes `n` bytes of data out of the buffer.
    pub fn take(&mut self, buffer: &mut Buffer, n: usize) {
        buffer.consume(n);
        self.received += n as u64;
        match &mut self.state {
            State::Length(left) => {
                *left -= n as u64;
                if *left == 0 {
                    self.state = State::Done;
                }
            }
            State::Chunk(left) => {
                *left -= n as u64;
                if *left == 0 {
                    self.state = State::ChunkEnd;
                }
            }
            _ => {}
        }
    }
}

/// Size and length of a chunk-size line; `None` if it is not all here.
fn size_line(bytes: &[u8]) -> Result<Option<(u64, usize)>, Reject> {
    let Some(at) = memchr::memchr(b'\n', bytes) else {
        return match bytes.len() > SIZE_LINE_MAX {
            true => Err(Reject::bad("a chunk-size line is too long")),
            false => check_prefix(bytes).map(|()| None),
        };
    };
    if at > SIZE_LINE_MAX {
        return Err(Reject::bad("a chunk-size line is too long"));
    }
    let line =
        bytes[..at].strip_suffix(b"\r").ok_or(Reject::bad("a chunk-size line ends with a bare line feed"))?;
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let extension = &line[digits..];
    if digits == 0 || digits > 16 {
        return Err(Reject::bad("a chunk size is not a number"));
    }
    if !(extension.is_empty() || extension[0] == b';') || extension.iter().any(|b| *b < 0x20 && *b != b'\t') {
        return Err(Reject::bad("a chunk-size line is malformed"));
    }
    let size =
        line[..digits].iter().fold(0_u64, |n, b| n << 4 | u64::from((*b as char).to_digit(16).unwrap_or(0)));
    if size > i64::MAX as u64 {
        return Err(Reject::bad("a chunk size is too large"));
    }
    Ok(Some((size, at + 1)))
}

/// Refuses a size line that cannot become one, without waiting for its end.
fn check_prefix(bytes: &[u8]) -> Result<(), Reject> {
    match bytes.first() {
        Some(b) if !b.is_ascii_hexdigit() => Err(Reject::bad("a chunk size is not a number")),
        _ => Ok(()),
    }
}

/// The length of the first trailer line with its end; 2 for the empty line that ends them.
fn trailer_line(bytes: &[u8]) -> Result<Option<usize>, Reject> {
    let Some(at) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
    let line = bytes[..at].strip_suffix(b"\r").ok_or(Reject::bad("a trailer ends with a bare line feed"))?;
    if !line.is_empty() {
        super::scan::field_line(line)?;
    }
    Ok(Some(at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `step` bytes; gives the body, or the refusal.
    fn decode(framing: Framing, input: &[u8], step: usize) -> Result<(Vec<u8>, bool), &'static str> {
        let (mut d, mut b, mut out) = (BodyDecoder::new(framing), Buffer::default(), Vec::new());
        let mut pieces = input.chunks(step);
        loop {
            match d.decode(&mut b).map_err(|r| r.reason)? {
                Decoded::End => return Ok((out, true)),
                Decoded::Data(n) => {
                    out.extend_from_slice(&b.data()[..n]);
                    d.take(&mut b, n);
                }
                Decoded::More => {
                    let Some(p) = pieces.next() else { return Ok((out, false)) };
                    b.spare()[..p.len()].copy_from_slice(p);
                    b.filled(p.len());
                }
            }
        }
    }

    #[test]
    fn bodies_are_read_whatever_the_pieces() {
        for step in [1, 2, 3, 100] {
            let ok = |f, i: &[u8]| decode(f, i, step).unwrap();
            assert_eq!(ok(Framing::Length(3), b"abcdef"), (b"abc".to_vec(), true));
            assert_eq!(ok(Framing::Length(4), b"abc"), (b"abc".to_vec(), false));
            assert_eq!(
                ok(Framing::Chunked, b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"),
                (b"abcde".to_vec(), true)
            );
            assert_eq!(ok(Framing::Chunked, b"0\r\nX-T: 1\r\n\r\n"), (vec![], true));
            assert_eq!(ok(Framing::UntilClose, b"abc"), (b"abc".to_vec(), false));
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for input in [
            "FFFFFFFFFFFFFFFFF\r\n",
            "-5\r\nhello",
            "\r\nhello",
            "5\nhello\r\n",
            "5;a\nbc\r\nhello\r\n0\r\n\r\n",
            "3\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "0\r\nbad trailer\r\n\r\n",
            "0\r\nA: b\n\r\n",
            &format!("1;{}\r\nx\r\n", "a".repeat(300)),
        ] {
            for step in [1, 1000] {
                assert!(decode(Framing::Chunked, input.as_bytes(), step).is_err(), "{input:?}");
            }
        }
    }
}
