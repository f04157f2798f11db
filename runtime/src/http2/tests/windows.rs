//! Bodies and answers within the windows of both sides.

use super::*;

#[test]
fn bodies_are_held_to_their_length_and_window() {
    for (length, pieces, want) in [
        ("5", &[5][..], None),
        ("5", &[2, 3], None),
        ("5", &[6], Some(Code::PROTOCOL_ERROR)),
        ("5", &[4], Some(Code::PROTOCOL_ERROR)),
        ("5", &[4, 2], Some(Code::PROTOCOL_ERROR)),
        ("99999", &[16_384, 16_384, 16_384, 16_384], Some(Code::PROTOCOL_ERROR)),
        ("99999", &[16_384, 16_384, 16_384, 16_384, 1], Some(Code::FLOW_CONTROL_ERROR)),
    ] {
        let mut talk = Talk::new();
        let fields = [POST, &[("content-length", length)]].concat();
        talk.frame(kind::HEADERS, flag::END_HEADERS, 1, &block(&fields)).unwrap();
        for (i, n) in pieces.iter().enumerate() {
            let end = u8::from(i + 1 == pieces.len());
            talk.frame(kind::DATA, end, 1, &vec![0; *n]).unwrap();
        }
        let want: Vec<_> = want.iter().map(|c| (1, c.0)).collect();
        assert_eq!(talk.resets(), want, "{length} {pieces:?}");
        if !want.is_empty() {
            assert_eq!(talk.events.last(), Some(&Event::Gone { slot: 0 }));
        }
    }
}

#[test]
fn what_is_used_may_be_sent_again() {
    let mut talk = Talk::new();
    talk.frame(kind::HEADERS, flag::END_HEADERS, 1, &block(POST)).unwrap();
    let key = Key { slot: 0, id: 1 };
    let mut piece = Vec::new();
    let mut allowed = [0_u64; 2];
    for _ in 0..200 {
        // A padded frame: padding counts, too.
        let payload = [&[200][..], &[7; 4000], &[0; 200]].concat();
        talk.frame(kind::DATA, flag::PADDED, 1, &payload).unwrap();
        assert_eq!(talk.connection.poll_body(key, &mut piece, &cx()), Poll::Ready(Body::Data));
        assert_eq!(piece, [7; 4000]);
        talk.connection.used(key, piece.len());
        for frame in talk.heard() {
            assert_eq!(frame.kind, kind::WINDOW_UPDATE);
            let n = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
            allowed[frame.stream as usize] += u64::from(n);
        }
    }
    assert!(talk.connection.poll_body(key, &mut piece, &cx()).is_pending());
    let sent = 200 * 4201;
    assert!(allowed[1] > sent - 32_768 && allowed[0] > sent - 524_288, "{allowed:?}");
    // What nobody takes is given back to the others when its stream goes.
    for _ in 0..3 {
        talk.frame(kind::DATA, 0, 1, &[0; 16_000]).unwrap();
    }
    talk.frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]).unwrap();
    for stream in (3..200).step_by(2) {
        talk.frame(kind::HEADERS, flag::END_HEADERS, stream, &block(POST)).unwrap();
        for _ in 0..4 {
            talk.frame(kind::DATA, 0, stream, &[0; 16_000]).unwrap();
        }
        let key = talk.connection.key(stream).unwrap();
        talk.connection.reset(key, Code::CANCEL);
    }
}

#[test]
fn answers_keep_to_the_windows() {
    let mut talk = Talk::new();
    // Ten bytes a stream.
    talk.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 10]).unwrap();
    let key = talk.get(1);
    talk.heard();
    let mut fields = Fields::default();
    fields.push(b"Content-Type", b"text/plain");
    fields.push(b"Connection", b"close");
    talk.connection.head(key, 200, &fields, Some(25), false).unwrap();
    assert_eq!(talk.connection.poll_room(key, &cx()), Poll::Ready(Ok(10)));
    talk.connection.data(key, &[1; 10], false).unwrap();
    assert!(talk.connection.poll_room(key, &cx()).is_pending());
    let heard = talk.heard();
    let fields = talk.fields(&heard[0].payload);
    assert_eq!(fields, [":status: 200", "content-type: text/plain", "content-length: 25"]);
    assert_eq!((heard[1].kind, heard[1].payload.len()), (kind::DATA, 10));
    talk.frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 5]).unwrap();
    assert_eq!(talk.connection.poll_room(key, &cx()), Poll::Ready(Ok(5)));
    // The window becomes smaller than what was sent, and larger again.
    talk.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]).unwrap();
    assert!(talk.connection.poll_room(key, &cx()).is_pending());
    talk.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 30]).unwrap();
    assert_eq!(talk.connection.poll_room(key, &cx()), Poll::Ready(Ok(25)));
    talk.connection.data(key, &[1; 15], true).unwrap();
    talk.connection.finish(key);
    assert_eq!(talk.connection.open(), 0);
    assert!(talk.resets().is_empty());
}

#[test]
fn streams_share_what_room_there_is() {
    let mut talk = Talk::new();
    talk.frame(kind::SETTINGS, 0, 0, &[0, 4, 0x10, 0, 0, 0]).unwrap();
    talk.frame(kind::WINDOW_UPDATE, 0, 0, &[0x10, 0, 0, 0]).unwrap();
    let keys = [1, 3, 5].map(|id| talk.get(id));
    for key in keys {
        talk.connection.head(key, 200, &Fields::default(), None, false).unwrap();
    }
    talk.heard();
    let mut sent = [0_usize; 3];
    for _ in 0..100 {
        for (key, sent) in keys.iter().zip(&mut sent) {
            while let Poll::Ready(room) = talk.connection.poll_room(*key, &cx()) {
                let n = room.unwrap();
                talk.connection.data(*key, &vec![0; n], false).unwrap();
                *sent += n;
            }
        }
        talk.heard();
    }
    let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
    assert!(*least > 0 && most - least <= 128 * 1024, "{sent:?}");
}
