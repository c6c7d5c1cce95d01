//! A staged file as a stream of checked JSON documents, with bounded memory.

use std::collections::VecDeque;
use std::io::Write;

use flate2::write::MultiGzDecoder;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::catalog::Compression;
use crate::error::{SqlResult, error, unsupported};
use crate::json::check;
use crate::json::frame::{Framed, Framer, Place};
use crate::session::SqlError;
use crate::stage::{Resolved, bucket_error};

/// Compressed bytes decompressed at once: at most a thousand times as many come out.
const GZIP_STEP_BYTES: usize = 4 << 10;

/// Bytes of an uncompressed file cut at once.
const PLAIN_STEP_BYTES: usize = 256 << 10;

/// What a file is made of.
pub(crate) enum Item {
    /// A checked document.
    Document(Place, String),
    /// A document that is not one; the next may be.
    Bad(Place, SqlError),
    /// The rest of the file cannot be read.
    Broken(Place, SqlError),
}

/// What was cut out of the bytes, not yet checked.
enum Piece {
    Framed(Framed),
    /// The compressed bytes are damaged from here on.
    Damaged(Place, SqlError),
}

/// Reads a file's documents.
pub(crate) struct Documents {
    bucket: String,
    bytes: BoxStream<'static, object_store::Result<bytes::Bytes>>,
    gzip: Option<MultiGzDecoder<Vec<u8>>>,
    chunk: bytes::Bytes,
    framer: Framer,
    framed: VecDeque<Piece>,
    over: bool,
    /// ETag and size of what is being read, which may differ from what was listed.
    pub(crate) etag: Option<String>,
    pub(crate) size_bytes: u64,
}

impl Documents {
    /// Opens an object. `NotFound` is the object's absence, or the bucket's.
    pub(crate) async fn open(
        store: &dyn ObjectStore,
        bucket: &str,
        key: &str,
        format: Resolved,
    ) -> Result<Self, OpenError> {
        let gzip = gzip(key, format.compression).map_err(OpenError::File)?;
        let path = object_store::path::Path::parse(key).map_err(|e| {
            OpenError::File(error(2, "58030", format!("The object's key cannot be read: {e}")))
        })?;
        let got = store.get(&path).await.map_err(|e| match e {
            object_store::Error::NotFound { .. } => OpenError::Gone(bucket_error(bucket, &e)),
            e => OpenError::Bucket(bucket_error(bucket, &e)),
        })?;
        let etag = got.meta.e_tag.as_ref().map(|e| e.trim_matches('"').to_owned());
        let size_bytes = got.meta.size;
        Ok(Self {
            bucket: bucket.to_owned(),
            bytes: got.into_stream(),
            gzip: gzip.then(|| MultiGzDecoder::new(Vec::new())),
            chunk: bytes::Bytes::new(),
            framer: Framer::new(format.strip_outer_array),
            framed: VecDeque::new(),
            over: false,
            etag,
            size_bytes,
        })
    }

    /// The next document; an error is the bucket's and says nothing about the file.
    pub(crate) async fn next(&mut self) -> SqlResult<Option<Item>> {
        loop {
            if let Some(piece) = self.framed.pop_front() {
                return Ok(Some(match piece {
                    Piece::Framed(Framed::Document(place, bytes)) => checked(place, bytes),
                    Piece::Framed(Framed::Broken(place, why)) => {
                        self.over = true;
                        Item::Broken(place, crate::error::bad_json(why))
                    }
                    Piece::Damaged(place, e) => {
                        self.over = true;
                        Item::Broken(place, e)
                    }
                }));
            }
            if self.over {
                return Ok(None);
            }
            self.advance().await?;
        }
    }

    /// Feeds the framer a little.
    async fn advance(&mut self) -> SqlResult<()> {
        let mut out = Vec::new();
        if self.chunk.is_empty() {
            match self.bytes.next().await {
                Some(chunk) => self.chunk = chunk.map_err(|e| bucket_error(&self.bucket, &e))?,
                None => {
                    self.over = true;
                    let mut broken = Ok(());
                    if let Some(gzip) = &mut self.gzip {
                        broken = gzip.try_finish().map_err(|e| bad_gzip(&e));
                        self.framer.feed(gzip.get_ref(), &mut out);
                        gzip.get_mut().clear();
                    }
                    if broken.is_ok() {
                        self.framer.finish(&mut out);
                    }
                    self.framed.extend(out.into_iter().map(Piece::Framed));
                    // Documents that came before the break are still handed out.
                    if let Err(e) = broken {
                        self.framed.push_back(Piece::Damaged(self.framer.place(), e));
                    }
                    return Ok(());
                }
            }
        }
        match &mut self.gzip {
            None => {
                let step = self.chunk.split_to(self.chunk.len().min(PLAIN_STEP_BYTES));
                self.framer.feed(&step, &mut out);
            }
            Some(gzip) => {
                let step = self.chunk.split_to(self.chunk.len().min(GZIP_STEP_BYTES));
                let written = gzip.write_all(&step);
                self.framer.feed(gzip.get_ref(), &mut out);
                gzip.get_mut().clear();
                if let Err(e) = written {
                    self.framed.extend(out.into_iter().map(Piece::Framed));
                    self.framed.push_back(Piece::Damaged(self.framer.place(), bad_gzip(&e)));
                    return Ok(());
                }
            }
        }
        self.framed.extend(out.into_iter().map(Piece::Framed));
        Ok(())
    }
}

/// Why a file was not opened.
pub(crate) enum OpenError {
    /// The file is at fault.
    File(SqlError),
    /// There is no such object, or no such bucket.
    Gone(SqlError),
    /// The bucket cannot be read now.
    Bucket(SqlError),
}

fn bad_gzip(e: &std::io::Error) -> SqlError {
    error(100_016, "22000", format!("Invalid data encountered during decompression: gzip: {e}"))
}

fn gzip(key: &str, compression: Compression) -> SqlResult<bool> {
    let extension = key.rsplit_once('.').map(|(_, e)| e.to_lowercase()).unwrap_or_default();
    match compression {
        Compression::Gzip => Ok(true),
        Compression::None => Ok(false),
        Compression::Auto => match extension.as_str() {
            "gz" | "gzip" => Ok(true),
            "bz2" | "br" | "zst" | "deflate" | "raw_deflate" | "snappy" | "zip" | "xz" => {
                Err(unsupported(format!("files compressed as .{extension}; GZIP is supported")))
            }
            _ => Ok(false),
        },
    }
}

fn checked(place: Place, bytes: Vec<u8>) -> Item {
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let at = e.utf8_error().valid_up_to();
            let text = format!("Invalid UTF8 detected in string, pos {at}");
            return Item::Bad(place, error(100_144, "22000", text));
        }
    };
    match check(&text) {
        Ok(()) => Item::Document(place, text),
        Err(e) => Item::Bad(place, e),
    }
}
