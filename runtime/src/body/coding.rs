//! Content codings (RFC 9110 8.4.1): gzip, deflate, br and zstd, read and written piece by piece.
//!
//! flate2 on zlib-rs for the first two, brotli in Rust, and zstd's own library, for which nothing in Rust compresses as
//! well. All readers work in bounded memory, whatever a body claims to need.

use std::io::Write as _;

use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, CompressorWriter, enc::StandardAlloc};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, InBuffer, Operation as _, OutBuffer};

/// A coding that gw reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    /// The zlib format; raw deflate is read, too, since some clients send it.
    Deflate,
    Br,
    Zstd,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Br, Self::Zstd, Self::Gzip, Self::Deflate];

    /// The coding with this name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL.into_iter().find(|c| name.eq_ignore_ascii_case(c.name()))
    }

    /// What it is called in a message.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Br => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// Why a body cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodingError {
    Malformed,
    /// It ends before it should.
    Truncated,
    /// Something follows its end.
    Trailing,
    /// What comes of it is larger than allowed, or too much larger than what went in.
    TooLarge,
}

impl CodingError {
    /// As a phrase about the body.
    pub fn what(self) -> &'static str {
        match self {
            Self::Malformed => "is malformed",
            Self::Truncated => "ends too early",
            Self::Trailing => "does not end where it should",
            Self::TooLarge => "is too large",
        }
    }
}

/// The largest window that a zstd body may need, as a power of two: 8 MiB (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 23;
/// The window of br bodies that gw writes, as a power of two: 512 KiB, more hardly helps what an API sends.
const BR_WINDOW_LOG: u32 = 19;
/// Most members of a gzip body: each costs more than its bytes.
const MEMBERS: u32 = 100;
/// What is worked on at once.
const PIECE: usize = 16 * 1024;

/// Reads one coded body.
pub struct Decoder {
    coding: Coding,
    state: Reader,
    /// The body, or a member of it, is complete.
    ended: bool,
    members: u32,
}

enum Reader {
    Zlib(Box<Decompress>),
    /// deflate, before its first byte tells which kind.
    Unknown,
    Br(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(zstd::stream::raw::Decoder<'static>),
    /// The library has no memory.
    Failed,
}

impl Decoder {
    /// A reader of a body in this coding.
    pub fn new(coding: Coding) -> Self {
        let state = match coding {
            Coding::Gzip => Reader::Zlib(Box::new(Decompress::new_gzip(15))),
            Coding::Deflate => Reader::Unknown,
            Coding::Br => {
                let alloc = StandardAlloc::default;
                // Strict: without the format's extension to windows of a gigabyte.
                Reader::Br(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())))
            }
            Coding::Zstd => zstd::stream::raw::Decoder::new()
                .and_then(|mut d| d.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).map(|()| d))
                .map_or(Reader::Failed, Reader::Zstd),
        };
        Self { coding, state, ended: false, members: 1 }
    }

    /// Decodes some of `input` into `out`; says how much was read and written. Neither moves where the body is over, or
    /// more input is needed.
    ///
    /// # Errors
    /// The body is malformed.
    pub fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), CodingError> {
        if self.ended {
            let more = !input.is_empty() && matches!(self.coding, Coding::Gzip | Coding::Zstd);
            if !more {
                return Ok((0, 0));
            }
            // Both formats may be repeated.
            self.members += 1;
            if self.members > MEMBERS {
                return Err(CodingError::TooLarge);
            }
            if let Reader::Zlib(d) = &mut self.state {
                **d = Decompress::new_gzip(15);
            }
            self.ended = false;
        }
        if let (Reader::Unknown, Some(first)) = (&self.state, input.first()) {
            // A zlib header names method 8 and a window of at most 32 KiB.
            let zlib = first & 0x0f == 8 && first >> 4 <= 7;
            self.state = Reader::Zlib(Box::new(Decompress::new(zlib)));
        }
        match &mut self.state {
            Reader::Unknown => Ok((0, 0)),
            Reader::Failed => Err(CodingError::Malformed),
            Reader::Zlib(d) => {
                let before = (d.total_in(), d.total_out());
                let status =
                    d.decompress(input, out, FlushDecompress::None).map_err(|_| CodingError::Malformed)?;
                self.ended = status == Status::StreamEnd;
                Ok(((d.total_in() - before.0) as usize, (d.total_out() - before.1) as usize))
            }
            Reader::Br(state) => {
                let (mut available_in, mut read) = (input.len(), 0);
                let (mut available_out, mut written, mut total) = (out.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut available_in,
                    &mut read,
                    input,
                    &mut available_out,
                    &mut written,
                    out,
                    &mut total,
                    state,
                );
                match result {
                    BrotliResult::ResultFailure => return Err(CodingError::Malformed),
                    BrotliResult::ResultSuccess => self.ended = true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                }
                Ok((read, written))
            }
            Reader::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, out).map_err(|_| CodingError::Malformed)?;
                let moved = status.bytes_read > 0 || status.bytes_written > 0;
                self.ended = status.remaining == 0 && (moved || self.ended);
                Ok((status.bytes_read, status.bytes_written))
            }
        }
    }

    /// Whether the body is complete.
    pub fn is_ended(&self) -> bool {
        self.ended
    }
}

/// How large a body may become.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes.
    pub size: usize,
    /// How many times what went in; not held against the first [`Bounds::FREE`] bytes.
    pub ratio: usize,
}

impl Bounds {
    /// So much may come of anything.
    pub const FREE: usize = 64 * 1024;

    fn allow(self, read: usize, written: usize) -> bool {
        written <= self.size && (written <= Self::FREE || written <= read.saturating_mul(self.ratio))
    }
}

/// Decodes a body that is here whole.
///
/// # Errors
/// It is malformed, not complete, or larger than `bounds` allow; nothing larger was ever held.
pub fn decode(coding: Coding, input: &[u8], bounds: Bounds) -> Result<Vec<u8>, CodingError> {
    let mut decoder = Decoder::new(coding);
    let (mut out, mut piece, mut at) = (Vec::new(), [0; PIECE], 0);
    loop {
        let (read, written) = decoder.step(&input[at..], &mut piece)?;
        at += read;
        out.extend_from_slice(&piece[..written]);
        if !bounds.allow(at, out.len()) {
            return Err(CodingError::TooLarge);
        }
        if read == 0 && written == 0 {
            return match (decoder.is_ended(), at == input.len()) {
                (false, _) => Err(CodingError::Truncated),
                (true, false) => Err(CodingError::Trailing),
                (true, true) => Ok(out),
            };
        }
    }
}

/// Decodes a body with several codings, of which the last was put on last.
///
/// # Errors
/// As [`decode`], whose bounds hold for each coding.
pub fn decode_all(codings: &[Coding], body: Vec<u8>, bounds: Bounds) -> Result<Vec<u8>, CodingError> {
    codings.iter().rev().try_fold(body, |body, coding| decode(*coding, &body, bounds))
}

/// Writes one coded body.
pub struct Encoder(Writer);

enum Writer {
    Zlib(Box<Compress>),
    Br(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::raw::Encoder<'static>),
    Done,
}

#[derive(Clone, Copy)]
enum Then {
    GoOn,
    Flush,
    Finish,
}

impl Encoder {
    /// A writer of a body in this coding; levels are the coding's own. `None` if there is no memory for one.
    pub fn new(coding: Coding, level: u32) -> Option<Self> {
        let compression = Compression::new(level.min(9));
        Some(Self(match coding {
            Coding::Gzip => Writer::Zlib(Box::new(Compress::new_gzip(compression, 15))),
            Coding::Deflate => Writer::Zlib(Box::new(Compress::new(compression, true))),
            Coding::Br => {
                Writer::Br(Box::new(CompressorWriter::new(Vec::new(), PIECE, level.min(11), BR_WINDOW_LOG)))
            }
            Coding::Zstd => {
                Writer::Zstd(zstd::stream::raw::Encoder::new(i32::try_from(level.min(19)).unwrap_or(3)).ok()?)
            }
        }))
    }

    /// Takes `input` in, and appends what comes of it.
    ///
    /// # Errors
    /// The library fails.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), CodingError> {
        self.run(input, out, Then::GoOn)
    }

    /// Gives out all that was taken in, so that a reader can read it.
    ///
    /// # Errors
    /// The library fails.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), CodingError> {
        self.run(&[], out, Then::Flush)
    }

    /// Ends the body.
    ///
    /// # Errors
    /// The library fails.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), CodingError> {
        self.run(&[], out, Then::Finish)
    }

    fn run(&mut self, input: &[u8], out: &mut Vec<u8>, then: Then) -> Result<(), CodingError> {
        const FAILED: CodingError = CodingError::Malformed;
        match &mut self.0 {
            Writer::Done => Ok(()),
            Writer::Zlib(c) => {
                let flush = match then {
                    Then::GoOn => FlushCompress::None,
                    Then::Flush => FlushCompress::Sync,
                    Then::Finish => FlushCompress::Finish,
                };
                let (mut piece, mut at) = ([0; PIECE], 0);
                loop {
                    let before = (c.total_in(), c.total_out());
                    let status = c.compress(&input[at..], &mut piece, flush).map_err(|_| FAILED)?;
                    let (read, written) = (c.total_in() - before.0, c.total_out() - before.1);
                    at += read as usize;
                    out.extend_from_slice(&piece[..written as usize]);
                    // What does not fill the piece is all that there is.
                    if status == Status::StreamEnd || (at == input.len() && (written as usize) < PIECE) {
                        return Ok(());
                    }
                }
            }
            Writer::Br(_) if matches!(then, Then::Finish) => {
                if let Writer::Br(writer) = std::mem::replace(&mut self.0, Writer::Done) {
                    out.append(&mut writer.into_inner());
                }
                Ok(())
            }
            Writer::Br(writer) => {
                writer.write_all(input).map_err(|_| FAILED)?;
                if let Then::Flush = then {
                    writer.flush().map_err(|_| FAILED)?;
                }
                out.append(writer.get_mut());
                Ok(())
            }
            Writer::Zstd(encoder) => {
                let (mut piece, mut input) = ([0; PIECE], InBuffer::around(input));
                while input.pos() < input.src.len() {
                    let mut to = OutBuffer::around(&mut piece[..]);
                    encoder.run(&mut input, &mut to).map_err(|_| FAILED)?;
                    out.extend_from_slice(to.as_slice());
                }
                loop {
                    let mut to = OutBuffer::around(&mut piece[..]);
                    let left = match then {
                        Then::GoOn => Ok(0),
                        Then::Flush => encoder.flush(&mut to),
                        Then::Finish => encoder.finish(&mut to, true),
                    };
                    out.extend_from_slice(to.as_slice());
                    if left.map_err(|_| FAILED)? == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { size: 1 << 20, ratio: 100 };

    fn encode(coding: Coding, pieces: &[&[u8]], flush: bool) -> Vec<u8> {
        let (mut encoder, mut out) = (Encoder::new(coding, 4).unwrap(), Vec::new());
        for piece in pieces {
            encoder.push(piece, &mut out).unwrap();
            if flush {
                encoder.flush(&mut out).unwrap();
            }
        }
        encoder.finish(&mut out).unwrap();
        out
    }

    fn noise(n: usize) -> Vec<u8> {
        let mut x = 1_u32;
        (0..n)
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (x >> 24) as u8
            })
            .collect()
    }

    #[test]
    fn what_is_written_can_be_read() {
        let long = noise(300_000);
        for coding in Coding::ALL {
            for flush in [false, true] {
                for pieces in [vec![], vec![&b"x"[..]], vec![&long[..], &b"more"[..], &long[..100]]] {
                    let coded = encode(coding, &pieces, flush);
                    assert_eq!(
                        decode(coding, &coded, BOUNDS).as_deref(),
                        Ok(&pieces.concat()[..]),
                        "{coding:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_flush_gives_out_everything() {
        for coding in Coding::ALL {
            let (mut encoder, mut decoder) = (Encoder::new(coding, 4).unwrap(), Decoder::new(coding));
            for text in ["one", "two and more", "three"] {
                let (mut coded, mut out) = (Vec::new(), [0; 100]);
                encoder.push(text.as_bytes(), &mut coded).unwrap();
                encoder.flush(&mut coded).unwrap();
                let mut got = Vec::new();
                while let (read, written @ 1..) | (read @ 1.., written) =
                    decoder.step(&coded, &mut out).unwrap()
                {
                    coded.drain(..read);
                    got.extend_from_slice(&out[..written]);
                }
                assert_eq!(got, text.as_bytes(), "{coding:?}");
            }
        }
    }

    #[test]
    fn broken_bodies_are_refused() {
        for coding in Coding::ALL {
            let whole = encode(coding, &[&noise(5000)], false);
            for cut in [0, 1, 5, whole.len() / 2, whole.len() - 1] {
                let error = decode(coding, &whole[..cut], BOUNDS).unwrap_err();
                assert_eq!(error, CodingError::Truncated, "{coding:?} cut to {cut}");
            }
            let trailing = [&whole[..], b"rest"].concat();
            let error = decode(coding, &trailing, BOUNDS).unwrap_err();
            assert!(matches!(error, CodingError::Trailing | CodingError::Malformed), "{coding:?}: {error:?}");
            let mut bad = whole.clone();
            for i in (20..bad.len()).step_by(97) {
                bad[i] ^= 0xff;
            }
            // br and zstd (without its checksum) have nothing that would tell of every change.
            if matches!(coding, Coding::Gzip | Coding::Deflate) {
                assert!(decode(coding, &bad, BOUNDS).is_err(), "{coding:?}");
            }
            assert!(decode(coding, b"\xffno such thing at all", BOUNDS).is_err(), "{coding:?}");
        }
        // Checksum and length are compared.
        for at in [4, 8] {
            let mut bad = encode(Coding::Gzip, &[b"hello"], false);
            let n = bad.len();
            bad[n - at] ^= 1;
            assert_eq!(decode(Coding::Gzip, &bad, BOUNDS), Err(CodingError::Malformed));
        }
    }

    #[test]
    fn bombs_do_not_go_off() {
        let zeros = vec![0; 8 << 20];
        for coding in Coding::ALL {
            let bomb = encode(coding, &[&zeros], false);
            assert!(bomb.len() < zeros.len() / 500, "{coding:?}: {}", bomb.len());
            assert_eq!(decode(coding, &bomb, BOUNDS), Err(CodingError::TooLarge), "{coding:?}");
            let lax = Bounds { size: 16 << 20, ratio: 100_000_000 };
            assert_eq!(decode(coding, &bomb, lax).map(|b| b.len()), Ok(zeros.len()), "{coding:?}");
            let small = encode(coding, &[&zeros[..50_000]], false);
            assert_eq!(decode(coding, &small, BOUNDS).map(|b| b.len()), Ok(50_000), "{coding:?}");
        }
        // A window of more than 8 MiB is refused before any memory is taken for it.
        let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, 0x01, 0x00, 0x00];
        assert_eq!(decode(Coding::Zstd, &window, BOUNDS), Err(CodingError::Malformed));
    }

    #[test]
    fn formats_with_members_are_read_to_the_last_one() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let two = [encode(coding, &[b"one"], false), encode(coding, &[b"two"], false)].concat();
            assert_eq!(decode(coding, &two, BOUNDS).as_deref(), Ok(&b"onetwo"[..]), "{coding:?}");
            let many = encode(coding, &[b""], false).repeat(1000);
            assert_eq!(decode(coding, &many, BOUNDS), Err(CodingError::TooLarge), "{coding:?}");
        }
        let mut raw = Vec::new();
        let mut c = Compress::new(Compression::new(6), false);
        raw.reserve(100);
        c.compress_vec(b"raw deflate", &mut raw, FlushCompress::Finish).unwrap();
        assert_eq!(decode(Coding::Deflate, &raw, BOUNDS).as_deref(), Ok(&b"raw deflate"[..]));
    }
}
