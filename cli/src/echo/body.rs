//! Bodies of answers: a text, or as many bytes as asked for without holding them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The body of an answer.
#[derive(Debug)]
pub struct AnswerBody {
    /// The text, or what is repeated to fill the size.
    piece: Bytes,
    left: u64,
    /// Keep the length to ourselves.
    chunked: bool,
}

/// What large bodies are made of.
static FILLER: [u8; 64 * 1024] = {
    let mut filler = [b'.'; 64 * 1024];
    // A line feed each 64 bytes, so that a terminal survives it.
    let mut i = 63;
    while i < filler.len() {
        filler[i] = b'\n';
        i += 64;
    }
    filler
};

impl AnswerBody {
    /// A text.
    pub fn text(text: impl Into<Bytes>, chunked: bool) -> Self {
        let piece = text.into();
        Self { left: piece.len() as u64, piece, chunked }
    }

    /// So many bytes.
    pub fn filler(size: u64, chunked: bool) -> Self {
        Self { piece: Bytes::from_static(&FILLER), left: size, chunked }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.piece.len());
        self.left -= most as u64;
        Poll::Ready(Some(Ok(Frame::data(self.piece.slice(..most)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.chunked { SizeHint::default() } else { SizeHint::with_exact(self.left) }
    }
}
