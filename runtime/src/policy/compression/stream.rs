//! A body that is coded, decoded, or coded anew as it passes.

use crate::body::coding::{CodingError, Decoder, Encoder};
use crate::policy::BodyFilter;
use crate::policy::filter::FilterError;

/// Decoded at once.
const PIECE: usize = 16 * 1024;

/// See the module.
pub struct Recoder {
    decoder: Option<Decoder>,
    encoder: Option<Encoder>,
}

impl Recoder {
    /// Takes off the coding of `decoder` and puts on that of `encoder`, where they are given.
    pub fn new(decoder: Option<Decoder>, encoder: Option<Encoder>) -> Self {
        Self { decoder, encoder }
    }

    fn give(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), CodingError> {
        match &mut self.encoder {
            Some(encoder) => encoder.push(piece, out),
            None => {
                out.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    /// Decodes until the input is used up, or enough has come of it. Tells how much was used.
    fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, CodingError> {
        let (mut piece, mut at) = ([0; PIECE], 0);
        while let Some(decoder) = &mut self.decoder {
            let (read, written) = decoder.step(&input[at..], &mut piece)?;
            if read == 0 && written == 0 {
                if at < input.len() {
                    return Err(CodingError::Trailing);
                }
                break;
            }
            at += read;
            self.give(&piece[..written], out)?;
            if out.len() >= PIECE {
                break;
            }
        }
        Ok(at)
    }
}

impl BodyFilter for Recoder {
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, FilterError> {
        match self.decoder {
            Some(_) => self.decode(input, out).map_err(failed),
            None => self.give(input, out).map(|()| input.len()).map_err(failed),
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), FilterError> {
        match &mut self.encoder {
            Some(encoder) => encoder.flush(out).map_err(failed),
            None => Ok(()),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<bool, FilterError> {
        let before = out.len();
        self.decode(&[], out).map_err(failed)?;
        if out.len() > before + PIECE {
            return Ok(false);
        }
        if self.decoder.as_ref().is_some_and(|d| !d.is_ended()) {
            return match out.len() > before {
                true => Ok(false),
                false => Err(failed(CodingError::Truncated)),
            };
        }
        if let Some(encoder) = &mut self.encoder {
            encoder.finish(out).map_err(failed)?;
        }
        Ok(true)
    }
}

fn failed(error: CodingError) -> FilterError {
    FilterError(match error {
        CodingError::Malformed => "the compressed body is malformed",
        CodingError::Truncated => "the compressed body ends too early",
        CodingError::Trailing => "the compressed body does not end where it should",
        CodingError::TooLarge => "the compressed body has too many members",
    })
}
