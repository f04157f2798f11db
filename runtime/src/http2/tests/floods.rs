//! Clients that want too much, and bytes that want nothing in particular.

use super::*;

#[test]
fn floods_end_the_connection() {
    let request = || {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, kind::HEADERS, flag::END_HEADERS, 0, &block(POST));
        bytes
    };
    let on = |stream: u32, mut bytes: Vec<u8>| {
        bytes[5..9].copy_from_slice(&stream.to_be_bytes());
        bytes
    };
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, kind, flags, stream, payload);
        bytes
    };
    type Round<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;
    let rounds: [(&str, u32, Round<'_>); 9] = [
        (
            "rapid reset",
            200,
            Box::new(|s| [on(s, request()), frame(kind::RST_STREAM, 0, s, &[0, 0, 0, 8])].concat()),
        ),
        (
            "a window opened by nothing",
            200,
            Box::new(|s| [on(s, request()), frame(kind::WINDOW_UPDATE, 0, s, &[0; 4])].concat()),
        ),
        (
            "data after the end",
            200,
            Box::new(|s| {
                [on(s, request()), frame(kind::DATA, 1, s, b""), frame(kind::DATA, 1, s, b"x")].concat()
            }),
        ),
        ("malformed requests", 200, Box::new(|s| frame(kind::HEADERS, END, s, &block(&[("A", "b")])))),
        ("streams beyond the bound", 1100, Box::new(|s| on(s, request()))),
        ("pings", 1100, Box::new(|_| frame(kind::PING, 0, 0, b"12345678"))),
        ("settings", 1100, Box::new(|_| frame(kind::SETTINGS, 0, 0, &[]))),
        ("priorities", 1100, Box::new(|s| frame(kind::PRIORITY, 0, s, &[0; 5]))),
        ("frames of no known type", 1100, Box::new(|s| frame(0x16, 0, s, &[]))),
    ];
    for (what, most, round) in rounds {
        let mut talk = Talk::new();
        let ended = (0..2000).find_map(|n| talk.say(&round(2 * n + 1)).err().map(|code| (n, code)));
        assert!(
            ended.is_some_and(|(n, code)| n <= most && code == Code::ENHANCE_YOUR_CALM),
            "{what}: {ended:?}"
        );
    }
    let mut talk = Talk::new();
    talk.frame(kind::HEADERS, flag::END_HEADERS, 1, &block(POST)).unwrap();
    let empty = (0..2000).find_map(|_| talk.frame(kind::DATA, 0, 1, &[]).err());
    assert_eq!(empty, Some(Code::ENHANCE_YOUR_CALM), "empty data");
    let mut talk = Talk::new();
    talk.frame(kind::HEADERS, flag::END_STREAM, 1, &block(POST)).unwrap();
    let parts = (0..200).find_map(|_| talk.frame(kind::CONTINUATION, 0, 1, &[]).err());
    assert_eq!(parts, Some(Code::ENHANCE_YOUR_CALM), "a block in many parts");
}

#[test]
fn what_comes_slowly_is_no_flood() {
    let mut talk = Talk::new();
    let mut now = crate::clock::monotonic();
    for _ in 0..20 {
        talk.connection.tick(now);
        for _ in 0..500 {
            talk.frame(kind::PING, 0, 0, b"12345678").unwrap();
            talk.heard();
        }
        now += std::time::Duration::from_secs(11);
    }
}

/// Whatever bytes come, none panics, and none makes more go out than it is worth.
#[test]
fn random_frames_are_harmless() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut encoder = Encoder::default();
    for _ in 0..300 {
        let mut talk = Talk::new();
        for _ in 0..100 {
            let (kind, flags, stream) = (next(11) as u8, next(64) as u8, next(9) as u32);
            let mut payload = Vec::new();
            match next(3) {
                0 => encoder.status(&mut payload, 200),
                1 => payload = HEAD_BLOCK.to_vec(),
                _ => payload.extend((0..next(30)).map(|_| next(256) as u8)),
            }
            if talk.frame(kind, flags, stream, &payload).is_err() {
                break;
            }
            for key in talk.connection.by_id.clone().into_iter().map(|(id, slot)| Key { slot, id }) {
                match next(6) {
                    0 => drop(talk.connection.head(key, 200, &Fields::default(), None, false)),
                    1 => talk.connection.finish(key),
                    2 => talk.connection.reset(key, Code::CANCEL),
                    _ => {}
                }
            }
            assert!(talk.connection.open() <= 4);
            talk.heard();
        }
    }
}
