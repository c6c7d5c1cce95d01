//! The bytes of one object, however long they take.

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::{GetOptions, GetRange, ObjectStore};
use sha2::{Digest, Sha256};

use crate::manifest::{Piece, Sum};
use crate::{ArchiveError, Target};

/// Bytes asked for in one request, whose time is limited: all of a large object would have to come in it.
const RANGE_BYTES: u64 = 16 << 20;
/// Requests in a row that may bring nothing.
const FRUITLESS_MAX: u32 = 3;

/// Why an object's bytes cannot be had.
pub(crate) enum NotWhole {
    /// There is no such object.
    Missing,
    /// It is not what was put.
    Other,
    /// The store refused, or did not answer.
    Store(object_store::Error),
}

impl NotWhole {
    /// The error, where `damaged` says what it means that an object "is not", or "is not as it was put".
    pub(crate) fn told(self, damaged: impl FnOnce(&str) -> String) -> ArchiveError {
        match self {
            Self::Missing => ArchiveError::Damaged(damaged("is not")),
            Self::Other => ArchiveError::Damaged(damaged("is not as it was put")),
            Self::Store(error) => error.into(),
        }
    }
}

/// An object being read. A request that is cut off is followed by one for the rest.
pub(crate) struct Object<'a> {
    store: &'a dyn ObjectStore,
    piece: &'a Piece,
    hash: Sha256,
    /// Bytes handed out.
    at: u64,
    /// What a request brings, up to this byte.
    body: Option<(BoxStream<'static, object_store::Result<Bytes>>, u64)>,
    fruitless: u32,
}

impl<'a> Object<'a> {
    /// Asks for nothing yet.
    pub(crate) fn open(target: &'a Target, piece: &'a Piece) -> Self {
        let store = &*target.store;
        Self { store, piece, hash: Sha256::new(), at: 0, body: None, fruitless: 0 }
    }

    /// The next bytes; `None` when all of them were handed out and are what was put. The caller's duty:
    /// use none of them before.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, NotWhole> {
        while self.at < self.piece.bytes {
            let Some((mut body, upto)) = self.body.take() else {
                self.ask().await?;
                continue;
            };
            match body.try_next().await {
                Ok(Some(chunk)) => {
                    self.at += chunk.len() as u64;
                    if self.at > upto {
                        return Err(NotWhole::Other);
                    }
                    self.hash.update(&chunk);
                    self.body = (self.at < upto).then_some((body, upto));
                    if !chunk.is_empty() {
                        self.fruitless = 0;
                        return Ok(Some(chunk));
                    }
                }
                Ok(None) => self.fruitless(None)?,
                Err(error) => self.fruitless(Some(error))?,
            }
        }
        match Sum::of(self.hash.clone()) == self.piece.sum {
            true => Ok(None),
            false => Err(NotWhole::Other),
        }
    }

    /// Asks for the next range. Without a body afterwards it is to be asked for again.
    async fn ask(&mut self) -> Result<(), NotWhole> {
        let bytes = self.piece.bytes;
        let upto = bytes.min(self.at + RANGE_BYTES);
        let is_whole = self.at == 0 && upto == bytes;
        let range = (!is_whole).then_some(GetRange::Bounded(self.at..upto));
        let options = GetOptions { range, ..GetOptions::default() };
        match self.store.get_opts(&self.piece.sum.object(), options).await {
            Ok(found) if found.meta.size != bytes => Err(NotWhole::Other),
            Ok(found) => {
                self.body = Some((found.into_stream(), upto));
                Ok(())
            }
            Err(object_store::Error::NotFound { .. }) => Err(NotWhole::Missing),
            Err(error) => self.fruitless(Some(error)),
        }
    }

    /// Counts a request that ended before its last byte; those that brought some start the count anew.
    fn fruitless(&mut self, error: Option<object_store::Error>) -> Result<(), NotWhole> {
        self.fruitless += 1;
        match self.fruitless < FRUITLESS_MAX {
            true => Ok(()),
            false => Err(error.map_or(NotWhole::Other, NotWhole::Store)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Flaky;
    use object_store::ObjectStoreExt;

    async fn all(target: &Target, piece: &Piece) -> Result<Vec<u8>, NotWhole> {
        let (mut object, mut found) = (Object::open(target, piece), Vec::new());
        while let Some(chunk) = object.next().await? {
            found.extend_from_slice(&chunk);
        }
        Ok(found)
    }

    fn piece(bytes: &[u8]) -> Piece {
        Piece { sum: Sum::of(Sha256::new_with_prefix(bytes)), bytes: bytes.len() as u64 }
    }

    #[tokio::test]
    async fn what_is_cut_off_is_asked_for_again() {
        let store = Flaky::new();
        let target = Target::of(store.clone());
        let bytes: Vec<u8> = (0..2 * RANGE_BYTES + 5).map(|n| (n % 251) as u8).collect();
        for part in [0, 1, 100, bytes.len()] {
            let (bytes, piece) = (&bytes[..part], piece(&bytes[..part]));
            store.put(&piece.sum.object(), bytes.to_vec().into()).await.unwrap();
            for cut in [usize::MAX, 5 << 20, 33] {
                // Never more than a hundred requests.
                store.cut_bodies_after(cut.max(bytes.len() / 100));
                assert!(all(&target, &piece).await.is_ok_and(|found| found == bytes));
            }
        }
        store.cut_bodies_after(0);
        assert!(matches!(all(&target, &piece(&bytes)).await, Err(NotWhole::Store(_))));
    }

    #[tokio::test]
    async fn what_is_not_as_it_was_put_is_told() {
        let store = Flaky::new();
        let target = Target::of(store.clone());
        let bytes = vec![7; RANGE_BYTES as usize + 1];
        let piece = piece(&bytes);
        assert!(matches!(all(&target, &piece).await, Err(NotWhole::Missing)));
        let mut flipped = bytes.clone();
        flipped[3] ^= 1;
        for other in [flipped, bytes[1..].to_vec(), [&bytes[..], &[7]].concat()] {
            store.put(&piece.sum.object(), other.into()).await.unwrap();
            assert!(matches!(all(&target, &piece).await, Err(NotWhole::Other)));
        }
    }
}
