//! Signatures in the header and in the query, read and verified.
//!
//! The input is a request as it looks over HTTP/1.1: `POST /path?query`, then a header a line, an
//! empty line, the body.

use std::sync::{Arc, LazyLock};

use http::Request;
use http::request::Parts;
use hydrant_core::Timestamp;
use hydrant_testkit::ManualClock;
use hydrant_wire::sigv4::{AccessKey, BodyHash, Credentials, ServiceKind, Verifier};

/// 2026-01-02T03:04:05Z, when the seeds were signed.
const SIGNED_AT_MS: u64 = 1_767_323_045_000;
const KINDS: [ServiceKind; 2] = [ServiceKind::Json("kinesis"), ServiceKind::S3];

static VERIFIERS: LazyLock<[Verifier; 2]> = LazyLock::new(|| {
    let key = AccessKey {
        id: "AKIDEXAMPLE".to_owned(),
        secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
        account: None,
    };
    [Credentials::Any, Credentials::Keys(vec![key])].map(|credentials| {
        let clock = ManualClock::new(Timestamp::from_millis(SIGNED_AT_MS));
        Verifier::new(credentials, "000000000000".parse().unwrap(), Arc::new(clock))
    })
});

pub(crate) fn run(input: &[u8]) {
    let Some((parts, body)) = read(input) else { return };
    for verifier in VERIFIERS.iter() {
        for kind in KINDS {
            let screened = verifier.screen(&parts, kind);
            let bodies = [BodyHash::Whole(body), BodyHash::Streaming];
            let streams = kind == ServiceKind::S3;
            for body in bodies.into_iter().take(1 + usize::from(streams)) {
                match verifier.authenticate(&parts, body, kind) {
                    Ok(_) => assert!(screened.is_ok(), "{screened:?}"),
                    Err(error) => assert!((400..500).contains(&error.status), "{error}"),
                }
            }
        }
    }
}

fn read(input: &[u8]) -> Option<(Parts, &[u8])> {
    let end = input.windows(2).position(|pair| pair == b"\n\n").unwrap_or(input.len());
    let (head, body) = (&input[..end], input.get(end + 2..).unwrap_or_default());
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.split(|byte| *byte == b' ');
    let mut request = Request::builder().method(first.next()?).uri(first.next()?);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    Some((request.body(()).ok()?.into_parts().0, body))
}
