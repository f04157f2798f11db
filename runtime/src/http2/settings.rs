//! SETTINGS: what the peer asks for, and what the gateway says of itself (RFC 9113 6.5, RFC 8441 3).

use super::flow;
use super::frame::{Code, MAX_PAYLOAD};

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// What the peer has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of the table that our encoder may use.
    pub table: u32,
    /// The window of a new stream.
    pub window: u32,
    /// The largest payload that we may send.
    pub frame: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { table: 4096, window: flow::DEFAULT, frame: MAX_PAYLOAD }
    }
}

impl Settings {
    /// Takes the peer's wishes out of a frame.
    ///
    /// # Errors
    /// A value that is not allowed.
    pub fn apply(&mut self, payload: &[u8]) -> Result<(), Code> {
        let (pairs, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Code::FRAME_SIZE_ERROR);
        }
        for &[i0, i1, a, b, c, d] in pairs {
            let value = u32::from_be_bytes([a, b, c, d]);
            match u16::from_be_bytes([i0, i1]) {
                HEADER_TABLE_SIZE => self.table = value,
                ENABLE_PUSH | ENABLE_CONNECT_PROTOCOL if value > 1 => return Err(Code::PROTOCOL_ERROR),
                INITIAL_WINDOW_SIZE if value > 0x7fff_ffff => return Err(Code::FLOW_CONTROL_ERROR),
                INITIAL_WINDOW_SIZE => self.window = value,
                MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => {
                    return Err(Code::PROTOCOL_ERROR);
                }
                // Larger frames would only keep other streams waiting.
                MAX_FRAME_SIZE => self.frame = MAX_PAYLOAD,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The payload that tells a client what it may do.
pub fn ours(streams: u32, window: u32, header_list: u32, connect_protocol: bool) -> Vec<u8> {
    let mut all = vec![
        (MAX_CONCURRENT_STREAMS, streams),
        (INITIAL_WINDOW_SIZE, window),
        (MAX_HEADER_LIST_SIZE, header_list),
    ];
    if connect_protocol {
        all.push((ENABLE_CONNECT_PROTOCOL, 1));
    }
    let mut payload = Vec::with_capacity(all.len() * 6);
    for (id, value) in all {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_held_to_their_ranges() {
        for (id, value, want) in [
            (HEADER_TABLE_SIZE, 0, Ok(())),
            (ENABLE_PUSH, 1, Ok(())),
            (ENABLE_PUSH, 2, Err(Code::PROTOCOL_ERROR)),
            (INITIAL_WINDOW_SIZE, 0x7fff_ffff, Ok(())),
            (INITIAL_WINDOW_SIZE, 0x8000_0000, Err(Code::FLOW_CONTROL_ERROR)),
            (MAX_FRAME_SIZE, 16_383, Err(Code::PROTOCOL_ERROR)),
            (MAX_FRAME_SIZE, 16_777_215, Ok(())),
            (MAX_FRAME_SIZE, 16_777_216, Err(Code::PROTOCOL_ERROR)),
            (ENABLE_CONNECT_PROTOCOL, 2, Err(Code::PROTOCOL_ERROR)),
            (0xff, u32::MAX, Ok(())),
        ] {
            let mut payload = id.to_be_bytes().to_vec();
            payload.extend_from_slice(&u32::to_be_bytes(value));
            assert_eq!(Settings::default().apply(&payload), want, "{id} {value}");
        }
        assert_eq!(Settings::default().apply(&[0; 5]), Err(Code::FRAME_SIZE_ERROR));
    }
}
