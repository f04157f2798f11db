//! Numbers of any size behind the first bits of a byte (RFC 7541 5.1).

use super::Malformed;

/// Larger numbers are no lengths that any block could have.
const MOST_BYTES: usize = 4;

/// Reads the number in the low `prefix` bits of the first byte and those after it; moves `bytes` on.
///
/// # Errors
/// The number has no end, or is too large.
pub fn read(bytes: &mut &[u8], prefix: u32) -> Result<usize, Malformed> {
    let (&first, mut rest) = bytes.split_first().ok_or(Malformed)?;
    let mask = (1_usize << prefix) - 1;
    let mut n = usize::from(first) & mask;
    if n == mask {
        let mut i = 0;
        loop {
            let (&b, after) = rest.split_first().ok_or(Malformed)?;
            rest = after;
            if i == MOST_BYTES {
                return Err(Malformed);
            }
            n += usize::from(b & 0x7f) << (7 * i);
            i += 1;
            if b < 0x80 {
                break;
            }
        }
    }
    *bytes = rest;
    Ok(n)
}

/// Writes a number behind the marks in `first`.
pub fn write(out: &mut Vec<u8>, first: u8, prefix: u32, mut n: usize) {
    let mask = (1_usize << prefix) - 1;
    if n < mask {
        out.push(first | n as u8);
        return;
    }
    out.push(first | mask as u8);
    n -= mask;
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_specification() {
        for (bytes, prefix, want) in [
            (&[0x0a][..], 5, Ok(10)),
            (&[0x1f, 0x9a, 0x0a], 5, Ok(1337)),
            (&[0x2a], 8, Ok(42)),
            (&[0x1f, 0x00], 5, Ok(31)),
            (&[0x1f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], 5, Err(Malformed)),
            (&[0x1f, 0xff], 5, Err(Malformed)),
            (&[], 5, Err(Malformed)),
        ] {
            assert_eq!(read(&mut &*bytes, prefix), want, "{bytes:?}");
        }
        for n in [0, 30, 31, 32, 127, 128, 16_384, 1 << 20] {
            let mut out = Vec::new();
            write(&mut out, 0xe0, 5, n);
            assert_eq!((read(&mut out.as_slice(), 5), out[0] & 0xe0), (Ok(n), 0xe0));
        }
    }
}
