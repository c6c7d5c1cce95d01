//! The documentation's own example, and what a decoder must not take.

use super::*;
use proptest::prelude::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SCOPE: &str = "20130524/us-east-1/s3";
const DATE: &str = "20130524T000000Z";
const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
const SIGNED: Framing = Framing { signed: true, trailers: false };
const UNSIGNED: Framing = Framing { signed: false, trailers: true };

fn signer() -> ChunkSigner {
    ChunkSigner::new(SECRET, DATE, SCOPE, SEED).unwrap()
}

/// The body of "Signature Calculations for the Authorization Header: Transferring Payload in
/// Multiple Chunks": 65,536 and 1,024 times `a`.
fn example() -> Vec<u8> {
    let mut body = Vec::new();
    for (size, signature) in [
        (65_536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
        (1_024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
        (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
    ] {
        body.extend(format!("{size:x};chunk-signature={signature}\r\n").bytes());
        body.extend(std::iter::repeat_n(b'a', size));
        body.extend(b"\r\n");
    }
    body
}

type Decoded = (Vec<u8>, Vec<(String, String)>);

fn decode(decoder: &mut Decoder, body: &[u8], step: usize) -> Result<Decoded, BodyError> {
    let mut data = Vec::new();
    for piece in body.chunks(step.max(1)) {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(bytes) = decoder.next(&mut piece)? {
            data.extend_from_slice(&bytes);
        }
    }
    Ok((data, decoder.finish()?))
}

#[test]
fn the_documented_example_verifies_at_any_split() {
    for step in [1, 7, 1_000, 65_536, 1 << 20] {
        let mut decoder = Decoder::new(SIGNED, Some(signer()));
        let (data, trailers) = decode(&mut decoder, &example(), step).unwrap();
        assert_eq!(data.len(), 66_560);
        assert!(trailers.is_empty());
    }
}

#[test]
fn a_changed_byte_of_data_or_signature_is_found() {
    let body = example();
    for at in [30, 100, 66_000, body.len() - 10] {
        let mut bad = body.clone();
        bad[at] ^= 1;
        let mut decoder = Decoder::new(SIGNED, Some(signer()));
        assert!(decode(&mut decoder, &bad, 1_000).is_err(), "byte {at}");
    }
    let mut other_key = ChunkSigner::new("another", DATE, SCOPE, SEED);
    let mut decoder = Decoder::new(SIGNED, other_key.take());
    assert_eq!(decode(&mut decoder, &body, 9_999).unwrap_err(), BodyError::Signature);
}

#[test]
fn a_body_cut_anywhere_is_incomplete() {
    let body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n";
    for cut in 0..=12 {
        let mut decoder = Decoder::new(UNSIGNED, None);
        assert!(decode(&mut decoder, &body[..cut], 3).is_err(), "cut at {cut}");
    }
    let mut decoder = Decoder::new(UNSIGNED, None);
    let (data, trailers) = decode(&mut decoder, body, 3).unwrap();
    assert_eq!(data, b"hello");
    assert_eq!(trailers, [("x-amz-checksum-crc32".to_owned(), "NhCmhg==".to_owned())]);
}

#[test]
fn framing_that_is_not_as_declared_is_refused() {
    let cases: [(Framing, &[u8]); 8] = [
        (SIGNED, b"1\r\na\r\n0\r\n\r\n"),
        (UNSIGNED, b"1;chunk-signature=00\r\na\r\n0\r\n\r\n"),
        (UNSIGNED, b"1\r\nab\r\n0\r\n\r\n"),
        (UNSIGNED, b"-1\r\na\r\n"),
        (UNSIGNED, b"+1\r\na\r\n"),
        (UNSIGNED, b"11111111111111111\r\na\r\n"),
        (UNSIGNED, b"1\na\n0\n\n"),
        (UNSIGNED, b"0\r\nno colon\r\n\r\n"),
    ];
    for (framing, body) in cases {
        let mut decoder = Decoder::new(framing, None);
        assert!(decode(&mut decoder, body, 2).is_err(), "{:?}", String::from_utf8_lossy(body));
    }
    let mut decoder = Decoder::new(UNSIGNED, None);
    assert!(decode(&mut decoder, &[b'1'; 2_000], 100).is_err());
}

proptest! {
    #[test]
    fn any_input_is_data_or_an_error(body: Vec<u8>, step in 1usize..64, signed: bool) {
        let framing = Framing { signed, trailers: !signed };
        let _ = decode(&mut Decoder::new(framing, None), &body, step);
    }

    #[test]
    fn chunks_of_any_size_give_back_the_data(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..8),
        step in 1usize..300,
    ) {
        let mut body = Vec::new();
        for chunk in &chunks {
            body.extend(format!("{:X}\r\n", chunk.len()).bytes());
            body.extend(chunk);
            body.extend(b"\r\n");
        }
        body.extend(b"0\r\n\r\n");
        let (data, _) = decode(&mut Decoder::new(UNSIGNED, None), &body, step).unwrap();
        prop_assert_eq!(data, chunks.concat());
    }
}
