//! `DeleteObject` and `DeleteObjects`.

use std::sync::Arc;

use hydrant_core::control::{ControlError, Write};
use s3s::dto::{
    self, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput,
    DeletedObject, ETagCondition,
};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use super::check_version;
use crate::error::{error, from_control, internal, not_implemented, slow_down};
use crate::index::{ObjectRow, object_key};
use crate::store::{Condition, Store};

/// Most keys of one `DeleteObjects` (S3).
const KEYS_MAX: usize = 1_000;
/// How often a commit is tried again because the object changed meanwhile.
const ATTEMPTS_MAX: usize = 100;

impl Store {
    /// Deletes one object, to the end even if the caller goes away. No object is no error.
    async fn delete(
        self: &Arc<Self>,
        bucket: String,
        key: String,
        condition: Condition,
    ) -> S3Result<()> {
        let store = Arc::clone(self);
        let deleted =
            tokio::spawn(async move { store.delete_all(&bucket, &key, &condition).await });
        deleted.await.map_err(internal)?
    }

    async fn delete_all(&self, bucket: &str, key: &str, condition: &Condition) -> S3Result<()> {
        let row_key = object_key(bucket, key);
        let _turn = self.key_lock(&row_key).lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let seen = self.row::<ObjectRow>(&row_key).await?;
            condition.check(seen.as_ref().map(|(_, row)| row))?;
            let Some((entry, row)) = seen else { return Ok(()) };
            let mut writes = vec![Write::delete(&row_key, entry.version)];
            let replaced = self.removal_of(&row, &mut writes).await?;
            match self.control.commit(writes).await {
                Ok(_) => {
                    metrics::gauge!("hydrant_bucket_objects").decrement(1.0);
                    self.discard(replaced);
                    return Ok(());
                }
                Err(ControlError::Conflict { .. }) => {}
                Err(cause) => return Err(from_control(cause)),
            }
        }
        Err(slow_down())
    }

    pub(crate) async fn delete_object(
        self: &Arc<Self>,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        check_version(input.version_id.as_deref())?;
        if input.if_match_last_modified_time.is_some() || input.if_match_size.is_some() {
            return Err(not_implemented(
                "x-amz-if-match-last-modified-time and x-amz-if-match-size",
            ));
        }
        self.bucket(&input.bucket).await?;
        let condition = Condition { if_match: input.if_match, if_none_match: None };
        self.delete(input.bucket, input.key, condition).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    pub(crate) async fn delete_objects(
        self: &Arc<Self>,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = request.input;
        self.bucket(&input.bucket).await?;
        let objects = input.delete.objects;
        if objects.is_empty() || objects.len() > KEYS_MAX {
            return Err(error(
                S3ErrorCode::MalformedXML,
                "The XML you provided was not well-formed or did not validate against our \
                 published schema",
            ));
        }
        let quiet = input.delete.quiet.unwrap_or(false);
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for object in objects {
            let key = object.key;
            let result = match check_version(object.version_id.as_deref()) {
                Ok(()) if object.last_modified_time.is_some() || object.size.is_some() => {
                    Err(not_implemented("LastModifiedTime and Size of an object to delete"))
                }
                Ok(()) => {
                    let if_match = object.e_tag.map(ETagCondition::ETag);
                    let condition = Condition { if_match, if_none_match: None };
                    self.delete(input.bucket.clone(), key.clone(), condition).await
                }
                Err(error) => Err(error),
            };
            match result {
                Ok(()) if quiet => {}
                Ok(()) => {
                    deleted.push(DeletedObject { key: Some(key), ..DeletedObject::default() })
                }
                Err(error) => errors.push(dto::Error {
                    code: Some(error.code().as_str().to_owned()),
                    key: Some(key),
                    message: error.message().map(str::to_owned),
                    version_id: None,
                }),
            }
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: (!deleted.is_empty()).then_some(deleted),
            errors: (!errors.is_empty()).then_some(errors),
            request_charged: None,
        }))
    }
}
