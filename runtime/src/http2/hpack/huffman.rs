//! The Huffman code of RFC 7541 appendix B. It is canonical: the lengths of its codes say all.

/// The length in bits of each byte's code, and of the end's.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];
const LONGEST: usize = 30;
/// Codes up to this length are found by one look-up.
const FAST_BITS: u32 = 8;

struct Code {
    /// The code of each byte.
    codes: [u32; 257],
    /// Of each length: the first code, how many there are, and where its symbols begin.
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    start: [u16; LONGEST + 1],
    /// The symbols in the order of their codes.
    symbols: [u16; 257],
    /// By the next eight bits: the byte and the length of its code, 0 where that is longer.
    fast: [(u8, u8); 1 << FAST_BITS],
}

static CODE: Code = build();

const fn build() -> Code {
    let mut c = Code {
        codes: [0; 257],
        first: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        start: [0; LONGEST + 1],
        symbols: [0; 257],
        fast: [(0, 0); 1 << FAST_BITS],
    };
    let (mut code, mut at, mut len) = (0_u32, 0, 1);
    while len <= LONGEST {
        code <<= 1;
        c.first[len] = code;
        c.start[len] = at;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == len {
                c.codes[symbol] = code;
                c.symbols[at as usize] = symbol as u16;
                if len as u32 <= FAST_BITS {
                    let mut i = code << (FAST_BITS - len as u32);
                    let end = (code + 1) << (FAST_BITS - len as u32);
                    while i < end {
                        c.fast[i as usize] = (symbol as u8, len as u8);
                        i += 1;
                    }
                }
                code += 1;
                at += 1;
                c.count[len] += 1;
            }
            symbol += 1;
        }
        len += 1;
    }
    c
}

/// The text is not in this code.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Appends the text that `bytes` say, of at most 8/5 of their length.
///
/// # Errors
/// Bytes that no text has.
pub fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.reserve(bytes.len() * 8 / 5 + 1);
    let mut rest = bytes.iter();
    // The bits to look at next, leftmost first, and how many there are.
    let (mut bits, mut n) = (0_u64, 0_u32);
    loop {
        while n <= 56 {
            let Some(&b) = rest.next() else { break };
            bits |= u64::from(b) << (56 - n);
            n += 8;
        }
        let (byte, len) = CODE.fast[(bits >> (64 - FAST_BITS)) as usize];
        if len > 0 && u32::from(len) <= n {
            out.push(byte);
            bits <<= len;
            n -= u32::from(len);
            continue;
        }
        if n < 8 {
            // What fills the last byte is the beginning of the end's code: ones.
            let padding = n == 0 || bits >> (64 - n) == (1 << n) - 1;
            return if padding { Ok(()) } else { Err(Malformed) };
        }
        let (symbol, len) = long(bits).ok_or(Malformed)?;
        if len > n {
            return Err(Malformed);
        }
        out.push(symbol);
        bits <<= len;
        n -= len;
    }
}

fn long(bits: u64) -> Option<(u8, u32)> {
    (FAST_BITS as usize + 1..=LONGEST).find_map(|len| {
        let code = (bits >> (64 - len)) as u32;
        let nth = code.checked_sub(CODE.first[len]).filter(|nth| *nth < CODE.count[len])?;
        let symbol = CODE.symbols[CODE.start[len] as usize + nth as usize];
        // The end's code is no text.
        Some((u8::try_from(symbol).ok()?, len as u32))
    })
}

/// How many bytes a text has in this code.
pub fn encoded_len(text: &[u8]) -> usize {
    text.iter().map(|b| usize::from(LENGTHS[*b as usize])).sum::<usize>().div_ceil(8)
}

/// Appends the text in this code.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut n) = (0_u64, 0_u32);
    for &b in text {
        let len = u32::from(LENGTHS[b as usize]);
        bits = bits << len | u64::from(CODE.codes[b as usize]);
        n += len;
        while n >= 8 {
            n -= 8;
            out.push((bits >> n) as u8);
        }
    }
    if n > 0 {
        out.push((bits << (8 - n)) as u8 | 0xff >> n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_examples_of_the_specification_decode_and_encode() {
        for (bytes, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
            (
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ] {
            let mut out = Vec::new();
            assert_eq!(decode(&hex(bytes), &mut out), Ok(()), "{text}");
            assert_eq!(String::from_utf8_lossy(&out), text);
            let mut back = Vec::new();
            encode(text.as_bytes(), &mut back);
            assert_eq!((back.len(), back), (encoded_len(text.as_bytes()), hex(bytes)), "{text}");
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let text: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        let (mut bytes, mut back) = (Vec::new(), Vec::new());
        encode(&text, &mut bytes);
        assert_eq!(decode(&bytes, &mut back), Ok(()));
        assert_eq!(back, text);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for (bytes, why) in [
            (&[0xff, 0xff, 0xff, 0xff][..], "the end's code"),
            (&[0xff], "a whole byte of padding"),
            (&[0x1f, 0xff], "more than seven bits of padding"),
            (&[0x18], "padding of other than ones"),
            (&[0xfe], "the first half of a code"),
        ] {
            assert_eq!(decode(bytes, &mut Vec::new()), Err(Malformed), "{why}");
        }
        assert_eq!(decode(&[], &mut Vec::new()), Ok(()));
    }
}
