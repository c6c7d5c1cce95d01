//! The protocol crate's view of the store: each operation, counted.

use std::future::Future;
use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result};

use crate::error::not_implemented;
use crate::ops::check_version;
use crate::store::Store;

/// See the module. An operation that is not here answers `NotImplemented`.
pub(crate) struct Front(pub(crate) Arc<Store>);

async fn counted<T>(
    operation: &'static str,
    work: impl Future<Output = S3Result<S3Response<T>>>,
) -> S3Result<S3Response<T>> {
    let result = work.await;
    let code = match &result {
        Ok(_) => "OK".to_owned(),
        Err(error) => error.code().as_str().to_owned(),
    };
    metrics::counter!("hydrant_bucket_requests_total", "operation" => operation, "code" => code)
        .increment(1);
    result
}

#[async_trait::async_trait]
impl S3 for Front {
    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        counted("CreateBucket", self.0.create_bucket(request)).await
    }

    async fn delete_bucket(
        &self,
        request: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        counted("DeleteBucket", self.0.delete_bucket(request)).await
    }

    async fn list_buckets(
        &self,
        request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        counted("ListBuckets", self.0.list_buckets(request)).await
    }

    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        counted("HeadBucket", self.0.head_bucket(request)).await
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        counted("GetBucketLocation", self.0.get_bucket_location(request)).await
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        counted("PutObject", self.0.put_object(request)).await
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        counted("GetObject", self.0.get_object(request)).await
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        counted("HeadObject", self.0.head_object(request)).await
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        counted("DeleteObject", self.0.delete_object(request)).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        counted("DeleteObjects", self.0.delete_objects(request)).await
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        counted("CopyObject", self.0.copy_object(request)).await
    }

    async fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        counted("ListObjects", self.0.list_objects(request)).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        counted("ListObjectsV2", self.0.list_objects_v2(request)).await
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        counted("CreateMultipartUpload", self.0.create_multipart_upload(request)).await
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        counted("UploadPart", self.0.upload_part(request)).await
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        counted("UploadPartCopy", self.0.upload_part_copy(request)).await
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        counted("CompleteMultipartUpload", self.0.complete_multipart_upload(request)).await
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        counted("AbortMultipartUpload", self.0.abort_multipart_upload(request)).await
    }

    async fn list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        counted("ListParts", self.0.list_parts(request)).await
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        counted("ListMultipartUploads", self.0.list_multipart_uploads(request)).await
    }

    /// Never enabled, which S3 says by saying nothing.
    async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let answer = async {
            self.0.bucket(&request.input.bucket).await?;
            Ok(S3Response::new(GetBucketVersioningOutput::default()))
        };
        counted("GetBucketVersioning", answer).await
    }

    /// None: a write with tags is refused. `aws s3 cp` between buckets asks.
    async fn get_object_tagging(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let input = request.input;
        let answer = async {
            check_version(input.version_id.as_deref())?;
            self.0.object(&input.bucket, &input.key).await?;
            Ok(S3Response::new(GetObjectTaggingOutput::default()))
        };
        counted("GetObjectTagging", answer).await
    }

    async fn get_bucket_notification_configuration(
        &self,
        request: S3Request<GetBucketNotificationConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketNotificationConfigurationOutput>> {
        let answer = async {
            self.0.bucket(&request.input.bucket).await?;
            Ok(S3Response::new(GetBucketNotificationConfigurationOutput::default()))
        };
        counted("GetBucketNotificationConfiguration", answer).await
    }

    async fn put_bucket_notification_configuration(
        &self,
        _request: S3Request<PutBucketNotificationConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketNotificationConfigurationOutput>> {
        let refusal = async {
            Err(not_implemented(
                "PutBucketNotificationConfiguration; pipes with AUTO_INGEST see every new object \
                 without it",
            ))
        };
        counted("PutBucketNotificationConfiguration", refusal).await
    }
}
