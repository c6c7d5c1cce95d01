//! A batch's records as the bytes of one object.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::{Compression as Level, GzBuilder};
use hydrant_core::destination::Compression;
use hydrant_core::record::Frame;

/// Bytes of data in the frames.
pub(super) fn data_bytes(frames: &[Frame]) -> usize {
    frames.iter().flat_map(Frame::records).map(|r| r.data.len()).sum()
}

/// The records' data, one behind the other with nothing between (AWS: "Firehose concatenates data
/// without any delimiters"), compressed if asked for. The same records give the same bytes.
pub(super) fn encode(
    frames: &[Frame],
    compression: Compression,
    data_bytes: usize,
) -> io::Result<Bytes> {
    match compression {
        Compression::Uncompressed => concatenate(frames, Vec::with_capacity(data_bytes)),
        Compression::Gzip => {
            // The builder's header carries no time and no name, so it is the same every time.
            let out = Vec::with_capacity(data_bytes / 4);
            let mut gzip = GzBuilder::new().write(out, Level::default());
            write_all(frames, &mut gzip)?;
            gzip.finish().map(Bytes::from)
        }
    }
}

fn concatenate(frames: &[Frame], mut out: Vec<u8>) -> io::Result<Bytes> {
    write_all(frames, &mut out)?;
    Ok(out.into())
}

fn write_all(frames: &[Frame], out: &mut impl Write) -> io::Result<()> {
    frames.iter().flat_map(Frame::records).try_for_each(|record| out.write_all(record.data))
}
