//! Amazon Resource Names, `arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE`.

use std::fmt;
use std::str::FromStr;

use crate::names::Scope;

/// A parsed ARN. The partition is `aws`, `aws-cn` and the like; hydrant itself says `aws`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arn {
    /// `kinesis`, `firehose`, …
    pub service: String,
    /// Account and region.
    pub scope: Scope,
    /// What is behind the fifth colon, such as `stream/tweets`.
    pub resource: String,
}

/// The text is not an ARN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ARN")]
pub struct InvalidArn;

impl Arn {
    /// The ARN of a resource.
    pub fn new(service: &str, scope: &Scope, resource: String) -> Self {
        Self { service: service.to_owned(), scope: scope.clone(), resource }
    }

    /// The resource's name if it is of this kind: `stream/tweets` is `tweets` of kind `stream`.
    pub fn name_of(&self, kind: &str) -> Option<&str> {
        self.resource.strip_prefix(kind)?.strip_prefix('/')
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scope { account, region } = &self.scope;
        write!(f, "arn:aws:{}:{region}:{account}:{}", self.service, self.resource)
    }
}

impl FromStr for Arn {
    type Err = InvalidArn;

    fn from_str(text: &str) -> Result<Self, InvalidArn> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next().ok_or(InvalidArn);
        let (prefix, partition) = (next()?, next()?);
        if prefix != "arn" || !partition.starts_with("aws") {
            return Err(InvalidArn);
        }
        let service = next()?.to_owned();
        let region = next()?.parse().map_err(|_| InvalidArn)?;
        let account = next()?.parse().map_err(|_| InvalidArn)?;
        let resource = next()?.to_owned();
        if service.is_empty() || resource.is_empty() {
            return Err(InvalidArn);
        }
        Ok(Self { service, scope: Scope { account, region }, resource })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let text = "arn:aws:kinesis:us-east-1:000000000000:stream/tweets";
        let arn: Arn = text.parse().unwrap();
        assert_eq!((arn.to_string().as_str(), arn.name_of("stream")), (text, Some("tweets")));
        for bad in ["", "arn:aws:kinesis", "arn:aws:kinesis:us-east-1:12:stream/x", "a:b:c:d:e:f"] {
            assert_eq!(bad.parse::<Arn>(), Err(InvalidArn), "{bad}");
        }
    }
}
