//! The operations on buckets themselves.

use std::sync::Arc;

use hydrant_core::control::{ControlError, Write};
use hydrant_wire::Principal;
use s3s::dto::{
    self, BucketLocationConstraint, CreateBucketInput, CreateBucketOutput, DeleteBucketInput,
    DeleteBucketOutput, GetBucketLocationInput, GetBucketLocationOutput, HeadBucketInput,
    HeadBucketOutput, ListBucketsInput, ListBucketsOutput,
};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use super::{PAGE_MAX, timestamp};
use crate::error::{error, from_control, internal, invalid_argument, not_implemented};
use crate::index::{BUCKETS, BucketRow, bucket_key, objects_of, split_upload, uploads_of};
use crate::owner;
use crate::store::Store;

/// The region whose buckets have no location constraint, and may be created twice.
const FIRST_REGION: &str = "us-east-1";
/// Most buckets a page may ask for (S3).
const BUCKETS_PAGE_MAX: i32 = 10_000;

impl Store {
    pub(crate) async fn create_bucket(
        self: &Arc<Self>,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let input = request.input;
        if input.object_lock_enabled_for_bucket.unwrap_or(false) {
            return Err(not_implemented("x-amz-bucket-object-lock-enabled"));
        }
        let asked = request.extensions.get::<Principal>();
        let asked = asked.map_or(FIRST_REGION, |p| p.scope().region.as_str());
        let configuration = input.create_bucket_configuration.unwrap_or_default();
        if configuration.bucket.is_some() || configuration.location.is_some() {
            return Err(not_implemented("directory buckets"));
        }
        let region = match configuration.location_constraint {
            None => asked.to_owned(),
            Some(constraint) if constraint.as_str() == FIRST_REGION => {
                return Err(error(
                    S3ErrorCode::InvalidLocationConstraint,
                    "The specified location-constraint is not valid",
                ));
            }
            Some(constraint) if constraint.as_str().is_empty() => asked.to_owned(),
            Some(constraint) => constraint.as_str().to_owned(),
        };
        let row = BucketRow { created: self.now(), region };
        let key = bucket_key(&input.bucket);
        match self.control.commit(vec![Write::insert(&key, &row)]).await {
            Ok(_) => {}
            Err(ControlError::Conflict { .. }) => {
                let existing = self.bucket(&input.bucket).await?;
                if existing.region != FIRST_REGION || row.region != FIRST_REGION {
                    return Err(error(
                        S3ErrorCode::BucketAlreadyOwnedByYou,
                        "Your previous request to create the named bucket succeeded and you \
                         already own it.",
                    ));
                }
            }
            Err(cause) => return Err(from_control(cause)),
        }
        let location = Some(format!("/{}", input.bucket));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    pub(crate) async fn delete_bucket(
        self: &Arc<Self>,
        request: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        let store = Arc::clone(self);
        let name = request.input.bucket;
        // To the end even if the caller goes away: the commit is not to outlive its lock.
        let deleted = tokio::spawn(async move { store.delete_empty(&name).await });
        deleted.await.map_err(internal)??;
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    async fn delete_empty(&self, name: &str) -> S3Result<()> {
        let _no_new_objects = self.buckets.write().await;
        let key = bucket_key(name);
        let seen = self.row::<BucketRow>(&key).await?;
        let (entry, _) = seen.ok_or_else(crate::error::no_such_bucket)?;
        let objects = self.control.scan(&objects_of(name), None, 1).await.map_err(from_control)?;
        if !objects.is_empty() {
            return Err(error(
                S3ErrorCode::BucketNotEmpty,
                "The bucket you tried to delete is not empty",
            ));
        }
        self.abort_all(name).await?;
        let deleted = self.control.commit(vec![Write::delete(key, entry.version)]).await;
        deleted.map(drop).map_err(from_control)
    }

    /// Ends the bucket's unfinished uploads, which do not keep it from being deleted.
    async fn abort_all(&self, name: &str) -> S3Result<()> {
        let within = uploads_of(name);
        loop {
            let rows = self.control.scan(&within, None, PAGE_MAX as usize).await;
            let rows = rows.map_err(from_control)?;
            if rows.is_empty() {
                return Ok(());
            }
            let writes = rows.iter().map(|(key, entry)| Write::delete(key, entry.version));
            self.control.commit(writes.collect()).await.map_err(from_control)?;
            for (key, _) in &rows {
                if let Some((_, upload_id)) = split_upload(&key[within.len()..]) {
                    self.clear_parts(upload_id, &[]).await;
                }
            }
        }
    }

    pub(crate) async fn list_buckets(
        self: &Arc<Self>,
        request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let input = request.input;
        // Without any paging parameter S3 returns every bucket; hydrant, as S3 for accounts with
        // many, pages at its limit and says where to go on.
        let max = input.max_buckets.unwrap_or(BUCKETS_PAGE_MAX);
        if !(1..=BUCKETS_PAGE_MAX).contains(&max) {
            return Err(invalid_argument(
                "Argument max-buckets must be an integer between 1 and 10000",
            ));
        }
        let prefix = format!("{BUCKETS}{}", input.prefix.as_deref().unwrap_or_default());
        let mut after = input.continuation_token.map(|token| bucket_key(&token));
        let max = max as usize;
        let mut buckets: Vec<dto::Bucket> = Vec::new();
        let mut next = None;
        'pages: loop {
            let page = self.control.scan(&prefix, after.as_deref(), PAGE_MAX as usize).await;
            let page = page.map_err(from_control)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, entry) in page {
                let row: BucketRow = entry.json(&key).map_err(from_control)?;
                if input.bucket_region.as_ref().is_some_and(|region| *region != row.region) {
                    continue;
                }
                if buckets.len() == max {
                    next = buckets.last().and_then(|bucket| bucket.name.clone());
                    break 'pages;
                }
                buckets.push(dto::Bucket {
                    bucket_region: Some(row.region),
                    creation_date: Some(timestamp(row.created)),
                    name: Some(key[BUCKETS.len()..].to_owned()),
                });
            }
        }
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets),
            continuation_token: next,
            owner: Some(owner()),
            prefix: input.prefix,
        }))
    }

    pub(crate) async fn head_bucket(
        self: &Arc<Self>,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        let row = self.bucket(&request.input.bucket).await?;
        let bucket_region = Some(row.region);
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() }))
    }

    pub(crate) async fn get_bucket_location(
        self: &Arc<Self>,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        let row = self.bucket(&request.input.bucket).await?;
        let location_constraint =
            (row.region != FIRST_REGION).then(|| BucketLocationConstraint::from(row.region));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
    }
}
