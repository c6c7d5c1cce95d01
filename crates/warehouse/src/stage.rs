//! Stages: which bucket and prefix a name stands for, and which files are there.

use std::sync::Arc;

use futures::TryStreamExt;
use hydrant_core::Timestamp;
use hydrant_core::bucket::BucketRef;
use hydrant_core::warehouse::StagedFile;
use object_store::ObjectStore;
use regex::Regex;

use crate::catalog::{Catalog, Compression, Format, FormatOptions, Names, Reach, Stage, split_url};
use crate::error::{SqlResult, error, invalid_value, unsupported};
use crate::session::SqlError;
use crate::sql::ast::{Kind, Location};

/// Opens a bucket that a stage names. The text of an error is shown to the user and must not hold
/// credentials.
pub type OpenBucket = Arc<dyn Fn(&BucketRef) -> Result<Arc<dyn ObjectStore>, String> + Send + Sync>;

/// Most files one listing returns.
pub(crate) const LIST_FILES_MAX: usize = 500_000;
/// Largest regular expression of a PATTERN, compiled.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A place in a bucket that a statement reads.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) bucket: BucketRef,
    /// Key prefix of the stage alone.
    pub(crate) stage_prefix: String,
    /// Key prefix of the stage and the path after it: a plain prefix, not a directory.
    pub(crate) prefix: String,
    /// What the stage says of its files' format.
    pub(crate) format: FormatOptions,
}

impl Place {
    /// `s3://bucket/key`.
    pub(crate) fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket.bucket)
    }

    /// What a pipe over this place takes of hydrant's own buckets, if it may be one of them.
    pub(crate) fn reach(&self, pattern: Option<String>) -> Option<Reach> {
        self.bucket.endpoint.is_none().then(|| Reach {
            bucket: self.bucket.bucket.clone(),
            stage_prefix: self.stage_prefix.clone(),
            prefix: self.prefix.clone(),
            pattern,
        })
    }
}

/// A file as listed, with what only a listing knows.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) file: StagedFile,
    pub(crate) key: String,
    pub(crate) modified: Timestamp,
}

/// Finds what a location stands for.
pub(crate) async fn place(
    catalog: &Catalog,
    location: &Location,
    names: &Names,
    command: &str,
) -> SqlResult<Place> {
    match location {
        Location::Stage { name, path } => {
            let name = catalog.resolve(name, names, command)?;
            let stage: Stage = catalog.expect(Kind::Stage, &name).await?.row;
            let (bucket, stage_prefix) = stage.place(catalog.seal.as_ref())?;
            let slash = match stage_prefix.is_empty() || stage_prefix.ends_with('/') {
                _ if path.is_empty() => "",
                true => "",
                false => "/",
            };
            let prefix = format!("{stage_prefix}{slash}{path}");
            Ok(Place { bucket, stage_prefix, prefix, format: stage.format })
        }
        Location::Url(url) => {
            let (bucket, prefix) = split_url(url).ok_or_else(|| invalid_value(url, "URL"))?;
            let bucket = BucketRef {
                bucket: bucket.to_owned(),
                region: None,
                endpoint: None,
                credentials: None,
            };
            Ok(Place {
                bucket,
                stage_prefix: String::new(),
                prefix: prefix.to_owned(),
                format: FormatOptions::default(),
            })
        }
    }
}

/// What a file format comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) compression: Compression,
    pub(crate) strip_outer_array: bool,
}

/// The format of the statement, then of the stage, with named ones looked up.
pub(crate) async fn resolve_format(
    catalog: &Catalog,
    statement: &FormatOptions,
    stage: &FormatOptions,
    names: &Names,
) -> SqlResult<Resolved> {
    let mut all = FormatOptions::default();
    for level in [statement, stage] {
        all = all.or(&FormatOptions { named: None, ..level.clone() });
        if let Some(name) = &level.named {
            let name = catalog.resolve(name, names, "COPY")?;
            let format: Format = catalog.expect(Kind::Format, &name).await?.row;
            all = all.or(&format.format);
        }
    }
    if all.json != Some(true) {
        return Err(unsupported(
            "FILE_FORMAT TYPE = CSV, which is the default; say FILE_FORMAT = (TYPE = 'JSON')",
        ));
    }
    Ok(Resolved {
        compression: all.compression.unwrap_or(Compression::Auto),
        strip_outer_array: all.strip_outer_array.unwrap_or(false),
    })
}

/// A PATTERN, which has to match the whole path.
pub(crate) fn pattern(text: &str) -> SqlResult<Regex> {
    regex::RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|e| error(2209, "2201B", format!("SQL compilation error:\nInvalid PATTERN: {e}")))
}

/// What a bucket's failure means to whoever reads it: Snowflake's number for a stage that cannot be
/// read, with the bucket's own words.
pub(crate) fn bucket_error(bucket: &str, e: &object_store::Error) -> SqlError {
    use object_store::Error;
    let why = match e {
        Error::NotFound { .. } => "the bucket or the object does not exist".to_owned(),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            "Access Denied".to_owned()
        }
        other => other.to_string(),
    };
    error(91_003, "55000", format!("Failure using stage area. Cause: [{why}] (bucket {bucket})"))
}

pub(crate) fn cannot_open(bucket: &str, why: &str) -> SqlError {
    error(91_003, "55000", format!("Failure using stage area. Cause: [{why}] (bucket {bucket})"))
}

/// Lists the files of a place by name, at most [`LIST_FILES_MAX`]. `pattern` sees the whole key.
pub(crate) async fn list(
    open: &OpenBucket,
    place: &Place,
    pattern: Option<&Regex>,
) -> SqlResult<Vec<Listed>> {
    let store = open(&place.bucket).map_err(|e| cannot_open(&place.bucket.bucket, &e))?;
    // The port lists directories; a stage's prefix may end within a name.
    let directory = place.prefix.rfind('/').map(|end| &place.prefix[..end]);
    let directory = directory.map(object_store::path::Path::from);
    let mut found = store.list(directory.as_ref());
    let mut files = Vec::new();
    while let Some(meta) =
        found.try_next().await.map_err(|e| bucket_error(&place.bucket.bucket, &e))?
    {
        let key = meta.location.to_string();
        if !key.starts_with(&place.prefix) || pattern.is_some_and(|p| !p.is_match(&key)) {
            continue;
        }
        if files.len() >= LIST_FILES_MAX {
            return Err(unsupported(format!(
                "stages with more than {LIST_FILES_MAX} files in one statement; name a path in the stage"
            )));
        }
        let modified = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or_default();
        files.push(Listed {
            file: StagedFile {
                url: place.url(&key),
                size_bytes: meta.size,
                etag: meta.e_tag.unwrap_or_default().trim_matches('"').to_owned(),
            },
            key,
            modified: Timestamp::from_millis(modified),
        });
    }
    files.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(files)
}
