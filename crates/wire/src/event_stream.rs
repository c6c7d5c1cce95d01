//! Frames of an event stream: a reply that goes on, piece by piece.
//!
//! Follows "Amazon Event Stream Specification" of the Smithy documentation. A frame is the lengths of
//! the whole and of its headers, their CRC32, the headers, the payload, and the CRC32 of all of it.

use bytes::Bytes;
use flate2::Crc;

/// Two lengths and their checksum.
const PRELUDE_BYTES: usize = 12;
/// A frame's own bytes: the prelude and the checksum at its end.
const FRAMING_BYTES: usize = PRELUDE_BYTES + 4;
/// Largest headers of a frame (the specification).
pub const HEADERS_BYTES_MAX: usize = 128 << 10;
/// Largest payload of a frame (the specification: 24 MiB).
pub const PAYLOAD_BYTES_MAX: usize = 24 << 20;
/// The type of a header's value that is a text.
const TEXT: u8 = 7;

/// The frame that a stream begins with. Its payload is an empty structure in the format of
/// `content_type`, which is the reply's: `application/x-amz-json-1.1` or `application/x-amz-cbor-1.1`.
pub fn initial_response(content_type: &str) -> Bytes {
    let empty: &[u8] = if content_type.contains("cbor") { &[0xa0] } else { b"{}" };
    event("initial-response", content_type, empty)
}

/// A frame with an event: a member of the stream's union, such as `SubscribeToShardEvent`.
/// The caller's duty: a name and a type of at most 255 bytes, at most [`PAYLOAD_BYTES_MAX`].
pub fn event(name: &str, content_type: &str, payload: &[u8]) -> Bytes {
    let mut frame = begin(name, content_type, payload.len());
    frame.extend_from_slice(payload);
    end(frame)
}

/// The first part of an event whose payload of so many bytes is written behind it, in one buffer that has
/// room for all of it; then [`end`] ends it. The caller's duty is that of [`event`].
pub fn begin(name: &str, content_type: &str, payload_bytes: usize) -> Vec<u8> {
    let headers =
        [(":message-type", "event"), (":event-type", name), (":content-type", content_type)];
    head(&headers, payload_bytes)
}

/// A frame that [`begin`] began, with its checksum. The caller's duty: its payload has as many bytes as
/// were said.
pub fn end(mut frame: Vec<u8>) -> Bytes {
    debug_assert!(
        frame.first_chunk().is_some_and(|whole: &[u8; 4]| {
            u32::from_be_bytes(*whole) as usize == frame.len() + 4
        })
    );
    frame.extend(checksum(&frame).to_be_bytes());
    frame.into()
}

/// A frame with an exception of the operation's, such as `InternalFailureException`: the last one of
/// a stream. The caller's duty is that of [`event`].
pub fn exception(name: &str, content_type: &str, payload: &[u8]) -> Bytes {
    let headers = [
        (":message-type", "exception"),
        (":exception-type", name),
        (":content-type", content_type),
    ];
    encode(&headers, payload)
}

fn encode(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let mut frame = head(headers, payload.len());
    frame.extend_from_slice(payload);
    end(frame)
}

fn head(headers: &[(&str, &str)], payload_bytes: usize) -> Vec<u8> {
    let header_bytes: usize = headers.iter().map(|(n, v)| n.len() + v.len() + 4).sum();
    let whole = FRAMING_BYTES + header_bytes + payload_bytes;
    debug_assert!(header_bytes <= HEADERS_BYTES_MAX && payload_bytes <= PAYLOAD_BYTES_MAX);
    let mut out = Vec::with_capacity(whole);
    out.extend((whole as u32).to_be_bytes());
    out.extend((header_bytes as u32).to_be_bytes());
    out.extend(checksum(&out).to_be_bytes());
    for (name, value) in headers {
        out.push(name.len() as u8);
        out.extend(name.as_bytes());
        out.push(TEXT);
        out.extend((value.len() as u16).to_be_bytes());
        out.extend(value.as_bytes());
    }
    out
}

/// A frame as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The headers whose values are texts, in the frame's order. Those of other types are read over.
    pub headers: Vec<(&'a str, &'a str)>,
    /// What is in it.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The value of the header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
    }
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The lengths are more than a frame may have, or contradict each other.
    #[error("the lengths of a frame are not possible")]
    Length,
    /// A checksum is not that of the bytes before it.
    #[error("a frame's checksum is wrong")]
    Checksum,
    /// The headers are not what their length says, or not texts in UTF-8.
    #[error("the headers of a frame cannot be read")]
    Headers,
}

/// Reads the first frame of `bytes`; what is behind it is the second half of the reply. `None` if
/// more bytes have to come first, of which at most the largest frame's are waited for.
pub fn decode(bytes: &[u8]) -> Result<Option<(Frame<'_>, &[u8])>, FrameError> {
    let Some((prelude, _)) = bytes.split_first_chunk::<PRELUDE_BYTES>() else { return Ok(None) };
    let (whole, header_bytes) = (number(prelude, 0), number(prelude, 4));
    if checksum(&prelude[..8]) != number(prelude, 8) as u32 {
        return Err(FrameError::Checksum);
    }
    let payload_bytes = whole.checked_sub(FRAMING_BYTES).and_then(|n| n.checked_sub(header_bytes));
    if header_bytes > HEADERS_BYTES_MAX || payload_bytes.is_none_or(|n| n > PAYLOAD_BYTES_MAX) {
        return Err(FrameError::Length);
    }
    if bytes.len() < whole {
        return Ok(None);
    }
    let (frame, rest) = bytes.split_at(whole);
    let (body, sum) = frame.split_at(whole - 4);
    if checksum(body) != number(sum, 0) as u32 {
        return Err(FrameError::Checksum);
    }
    let (headers, payload) = body[PRELUDE_BYTES..].split_at(header_bytes);
    Ok(Some((Frame { headers: read_headers(headers)?, payload }, rest)))
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The four bytes at a place, which are there.
fn number(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().take(4).fold(0, |n, byte| n << 8 | usize::from(*byte))
}

fn read_headers(mut rest: &[u8]) -> Result<Vec<(&str, &str)>, FrameError> {
    let mut headers = Vec::new();
    while !rest.is_empty() {
        let name_len = usize::from(take(&mut rest, 1)?[0]);
        let name = text(take(&mut rest, name_len)?)?;
        let kind = take(&mut rest, 1)?[0];
        let value_len = match kind {
            0 | 1 => 0,
            2 => 1,
            3 => 2,
            4 => 4,
            5 | 8 => 8,
            6 | TEXT => take(&mut rest, 2)?.iter().fold(0, |n, b| n << 8 | usize::from(*b)),
            9 => 16,
            _ => return Err(FrameError::Headers),
        };
        let value = take(&mut rest, value_len)?;
        if kind == TEXT {
            headers.push((name, text(value)?));
        }
    }
    Ok(headers)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], FrameError> {
    let (taken, after) = rest.split_at_checked(len).ok_or(FrameError::Headers)?;
    *rest = after;
    Ok(taken)
}

fn text(bytes: &[u8]) -> Result<&str, FrameError> {
    std::str::from_utf8(bytes).map_err(|_| FrameError::Headers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_those_of_the_specification() {
        let empty = [0, 0, 0, 16, 0, 0, 0, 0, 0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff];
        assert_eq!(encode(&[], b""), &empty[..]);
        let first = initial_response("application/x-amz-json-1.1");
        // Computed with zlib's CRC32, and accepted by botocore's parser.
        assert_eq!(hex::encode(&first[..12]), "0000007200000060ab820d9e");
        assert_eq!(hex::encode(&first[first.len() - 6..]), "7b7de16e66e4");
    }

    #[test]
    fn what_is_written_is_read() {
        let mut stream = initial_response("application/x-amz-cbor-1.1").to_vec();
        stream.extend(event("SubscribeToShardEvent", "application/x-amz-json-1.1", b"{\"a\":1}"));
        stream.extend(exception("InternalFailureException", "application/x-amz-json-1.1", b"{}"));
        let (first, rest) = decode(&stream).unwrap().unwrap();
        assert_eq!(first.header(":event-type"), Some("initial-response"));
        assert_eq!(first.payload, [0xa0]);
        let (second, rest) = decode(rest).unwrap().unwrap();
        assert_eq!(second.header(":message-type"), Some("event"));
        assert_eq!(second.payload, b"{\"a\":1}");
        let (third, rest) = decode(rest).unwrap().unwrap();
        assert_eq!(third.header(":exception-type"), Some("InternalFailureException"));
        assert_eq!(third.header(":message-type"), Some("exception"));
        assert_eq!(decode(rest), Ok(None));
        for cut in 0..first_len(&stream) {
            assert_eq!(decode(&stream[..cut]), Ok(None), "{cut}");
        }
    }

    fn first_len(stream: &[u8]) -> usize {
        stream.len() - decode(stream).unwrap().unwrap().1.len()
    }

    #[test]
    fn a_frame_that_is_not_whole_is_no_frame() {
        let good = event("SubscribeToShardEvent", "application/x-amz-json-1.1", b"{}");
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            assert_eq!(decode(&bad), Err(FrameError::Checksum), "{at}");
        }
        let mut vast = [0xff; PRELUDE_BYTES];
        let sum = checksum(&vast[..8]);
        vast[8..].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(decode(&vast), Err(FrameError::Length));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(
            headers in prop::collection::vec(any::<u8>(), 0..80),
            payload in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = decode(&payload);
            // With right checksums, the headers are what is left to go wrong.
            let mut frame = ((FRAMING_BYTES + headers.len() + payload.len()) as u32)
                .to_be_bytes()
                .to_vec();
            frame.extend((headers.len() as u32).to_be_bytes());
            frame.extend(checksum(&frame).to_be_bytes());
            frame.extend(&headers);
            frame.extend(&payload);
            frame.extend(checksum(&frame).to_be_bytes());
            if let Some((read, rest)) = decode(&frame).unwrap_or_default() {
                prop_assert_eq!(read.payload, &payload[..]);
                prop_assert!(rest.is_empty());
            }
        }
    }
}
