//! Frames of an event stream: any bytes, and any contents with good checksums.
//!
//! The first byte of the input chooses: 0 the rest is the stream itself; otherwise it is how many
//! bytes of the rest are headers, and what is behind them is the payload.

use flate2::Crc;
use hydrant_wire::event_stream::{decode, event};

pub(crate) fn run(input: &[u8]) {
    let Some((header_bytes, rest)) = input.split_first() else { return };
    if *header_bytes == 0 {
        read(rest);
        return;
    }
    let frame = sealed(usize::from(*header_bytes).min(rest.len()), rest);
    // Two of them, so that the second begins where the first says that it ends.
    let read_twice = read(&[&frame[..], &frame[..]].concat());
    assert!(read_twice == 0 || read_twice == 2);
    if let Ok(name) = std::str::from_utf8(&rest[..rest.len().min(200)]) {
        let bytes = event(name, "application/json", rest);
        let (frame, after) = decode(&bytes).unwrap().unwrap();
        assert_eq!((frame.header(":event-type"), frame.payload), (Some(name), rest));
        assert!(after.is_empty());
    }
}

/// Reads frames to the end; how many there were.
fn read(mut bytes: &[u8]) -> usize {
    let mut frames = 0;
    while let Ok(Some((frame, rest))) = decode(bytes) {
        assert!(rest.len() + frame.payload.len() < bytes.len());
        frames += 1;
        bytes = rest;
    }
    frames
}

fn sealed(header_bytes: usize, contents: &[u8]) -> Vec<u8> {
    let mut out = ((contents.len() + 16) as u32).to_be_bytes().to_vec();
    out.extend((header_bytes as u32).to_be_bytes());
    for _ in 0..2 {
        let mut crc = Crc::new();
        crc.update(&out);
        out.extend(crc.sum().to_be_bytes());
        if out.len() == 12 {
            out.extend(contents);
        }
    }
    out
}
