//! Which bucket a `Host` names: both addressing styles on one port.

use std::sync::Arc;

use s3s::S3Result;
use s3s::host::{S3Host, VirtualHost};

/// Domains whose subdomains are buckets.
#[derive(Clone, Debug)]
pub(crate) struct Domains(Arc<[String]>);

impl Domains {
    /// The longest domain that fits decides, so `s3.localhost` may stand beside `localhost`.
    pub(crate) fn new(mut domains: Vec<String>) -> Self {
        domains.iter_mut().for_each(|domain| domain.make_ascii_lowercase());
        domains.sort_by_key(|domain| std::cmp::Reverse(domain.len()));
        Self(domains.into())
    }

    /// The bucket, if the host (with or without port) is a subdomain.
    pub(crate) fn bucket_of(&self, host: &str) -> Option<String> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.to_ascii_lowercase();
        if self.0.contains(&name) {
            return None;
        }
        let below = |domain: &String| name.strip_suffix(domain.as_str())?.strip_suffix('.');
        self.0.iter().find_map(below).filter(|bucket| !bucket.is_empty()).map(str::to_owned)
    }
}

impl S3Host for Domains {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        Ok(match self.bucket_of(host) {
            Some(bucket) => VirtualHost::new(host).with_bucket(bucket),
            None => VirtualHost::new(host),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdomains_are_buckets_and_nothing_else_is() {
        let domains = Domains::new(vec!["localhost".into(), "s3.localhost".into()]);
        let bucket = |host| domains.bucket_of(host);
        assert_eq!(bucket("lake.localhost:4566").as_deref(), Some("lake"));
        assert_eq!(bucket("my.lake.LOCALHOST").as_deref(), Some("my.lake"));
        assert_eq!(bucket("lake.s3.localhost").as_deref(), Some("lake"));
        for host in [
            "localhost",
            "localhost:4566",
            "s3.localhost",
            "127.0.0.1:4566",
            "[::1]:4566",
            "example.com",
            "notlocalhost",
            ".localhost",
            "",
        ] {
            assert_eq!(bucket(host), None, "{host}");
        }
    }
}
