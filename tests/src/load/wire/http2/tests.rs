//! The client against frames written by hand.

use super::*;

const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

fn open() -> Http2 {
    let mut connection = Http2::new("a:1", "/p", Meaning::RateLimit);
    connection.greet(&mut Vec::new());
    connection
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(payload.len(), kind, flags, id).to_vec();
    frame.extend(payload);
    frame
}

fn answer(id: u32, code: u8) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, id, &[0x88]);
    bytes.extend(frame(DATA, 0, id, &[0, 0, 0, 0, 2, 0x08, code]));
    bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, TRAILERS));
    bytes
}

fn receive(connection: &mut Http2, bytes: &[u8]) -> Result<Vec<Answer>, Fault> {
    let mut answers = Vec::new();
    connection.receive(bytes, &mut Vec::new(), &mut answers).map(|()| answers)
}

#[test]
fn answers_come_in_any_order_and_in_any_pieces() {
    let mut bytes = answer(3, 2);
    bytes.extend(answer(1, 1));
    for cut in 0..bytes.len() {
        let mut connection = open();
        connection.send(10, b"x", &mut Vec::new());
        connection.send(11, b"x", &mut Vec::new());
        let mut answers = receive(&mut connection, &bytes[..cut]).unwrap();
        answers.extend(receive(&mut connection, &bytes[cut..]).unwrap());
        let expected = [
            Answer { tag: 11, verdict: Ok(Verdict::Refused) },
            Answer { tag: 10, verdict: Ok(Verdict::Admitted) },
        ];
        assert_eq!(answers, expected, "cut at {cut}");
    }
}

#[test]
fn errors_are_errors() {
    let trailers_only = b"\x88\x00\x0bgrpc-status\x0214";
    let end = END_HEADERS | END_STREAM;
    let table = [
        (frame(HEADERS, end, 1, trailers_only), Fault::Grpc(14)),
        (frame(HEADERS, end, 1, &[0x08, 3, b'5', b'0', b'3']), Fault::Status(503)),
        (frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]), Fault::Reset(7)),
    ];
    for (bytes, fault) in table {
        let mut connection = open();
        connection.send(0, b"x", &mut Vec::new());
        let answers = receive(&mut connection, &bytes).unwrap();
        assert_eq!(answers, [Answer { tag: 0, verdict: Err(fault) }]);
    }
}

#[test]
fn a_connection_that_cannot_go_on_says_why() {
    let table = [
        (frame(GOAWAY, 0, 0, &[0; 8]), Fault::GoAway(0)),
        (frame(DATA, 0, 9, b"x"), Fault::Protocol("data of a stream that is not open")),
        (frame(HEADERS, 0, 1, &[0x88]), Fault::Protocol("headers in several frames")),
    ];
    for (bytes, fault) in table {
        let mut connection = open();
        connection.send(0, b"x", &mut Vec::new());
        assert_eq!(receive(&mut connection, &bytes), Err(fault));
    }
}

#[test]
fn the_window_and_the_stream_limit_of_the_server_are_kept() {
    let mut connection = open();
    let message = [0; MESSAGE_BYTES_MAX];
    for tag in 0..3 {
        assert!(connection.can_send(&message));
        connection.send(tag, &message, &mut Vec::new());
    }
    assert!(!connection.can_send(&message), "65,535 bytes hold three of 16,384");
    receive(&mut connection, &frame(WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0])).unwrap();
    assert!(connection.can_send(&message));
    receive(&mut connection, &frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 3])).unwrap();
    assert!(!connection.can_send(b"x"));
}

#[test]
fn settings_and_pings_are_acknowledged() {
    let mut connection = open();
    let mut out = Vec::new();
    connection.receive(&frame(SETTINGS, 0, 0, &[]), &mut out, &mut Vec::new()).unwrap();
    connection.receive(&frame(PING, 0, 0, b"12345678"), &mut out, &mut Vec::new()).unwrap();
    let mut expected = frame(SETTINGS, ACK, 0, &[]);
    expected.extend(frame(PING, ACK, 0, b"12345678"));
    assert_eq!(out, expected);
}
