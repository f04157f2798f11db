//! PEM blocks (RFC 7468), as people paste them: anything may stand around a block.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// One block: its label (`PUBLIC KEY`, `CERTIFICATE`, ...) and its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    pub label: String,
    pub der: Vec<u8>,
}

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Every block of a text, in order.
pub fn blocks(text: &str) -> Result<Vec<Block>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("-----BEGIN ") {
        let after = &rest[start + "-----BEGIN ".len()..];
        let Some(label_end) = after.find("-----") else {
            return Err("a `-----BEGIN` line does not end with `-----`".into());
        };
        let label = &after[..label_end];
        let body = &after[label_end + 5..];
        let end_line = format!("-----END {label}-----");
        let Some(end) = body.find(&end_line) else {
            return Err(format!("the block `{label}` has no `{end_line}` line"));
        };
        found.push(Block { label: label.to_owned(), der: decode(label, &body[..end])? });
        rest = &body[end + end_line.len()..];
    }
    if found.is_empty() {
        return Err("no `-----BEGIN ...-----` line, so this is not PEM".into());
    }
    Ok(found)
}

fn decode(label: &str, body: &str) -> Result<Vec<u8>, String> {
    if body.contains("ENCRYPTED") {
        return Err(format!("the block `{label}` is encrypted; decrypt it first"));
    }
    let packed: Vec<u8> = body.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    LENIENT.decode(packed).map_err(|_| format!("the block `{label}` is not valid base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_or_refused() {
        let check = |text: &str, want: Result<&[(&str, &[u8])], &str>| match (blocks(text), want) {
            (Ok(got), Ok(want)) => {
                let got: Vec<_> = got.iter().map(|b| (b.label.as_str(), b.der.as_slice())).collect();
                assert_eq!(got, want, "{text}");
            }
            (Err(got), Err(want)) => assert!(got.contains(want), "{text}: {got}"),
            (got, want) => panic!("{text}: {:?}, wanted {want:?}", got.map(|b| b.len())),
        };
        check(
            "x\n-----BEGIN A B-----\r\nAQID\r\n-----END A B-----\n-----BEGIN C-----AQ==-----END C-----",
            Ok(&[("A B", &[1, 2, 3]), ("C", &[1])]),
        );
        check("", Err("not PEM"));
        check("-----BEGIN A", Err("does not end"));
        check("-----BEGIN A-----\nAQID\n-----END B-----", Err("has no `-----END A-----`"));
        check("-----BEGIN A-----\n%%\n-----END A-----", Err("base64"));
        check("-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n-----END A-----", Err("encrypted"));
    }
}
