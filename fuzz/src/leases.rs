//! The lease tables and their expressions: a line of the input is an operation and its request.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::Random;
use hydrant_leases::{Leases, Options};
use hydrant_testkit::{ManualClock, MemoryControl};
use hydrant_wire::{Call, JsonService, Reply};
use serde_json::Value;

use crate::world::{block_on, scope};

/// Most lines of one input.
const LINES_MAX: usize = 16;
const TABLE: &str = r#"{"TableName":"t","KeySchema":[{"AttributeName":"k","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"k","AttributeType":"S"}],"BillingMode":"PAY_PER_REQUEST"}"#;

pub(crate) fn run(input: &[u8]) {
    block_on(async {
        let clock = Arc::new(ManualClock::default());
        let random = Arc::new(Random::from_seed(1));
        let control = Arc::new(MemoryControl::new());
        let leases = Leases::new(control, clock.clone(), random, Options::default());
        call(&leases, "CreateTable", TABLE.as_bytes()).await;
        clock.advance(Duration::from_secs(1));
        for line in input.split(|byte| *byte == b'\n').take(LINES_MAX) {
            let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
            let Ok(operation) = std::str::from_utf8(&line[..end]) else { continue };
            call(&leases, operation, line.get(end + 1..).unwrap_or(b"{}")).await;
            clock.advance(Duration::from_millis(100));
        }
    });
}

/// No input makes the tables fail, and what they answer is JSON.
async fn call(leases: &Leases, operation: &str, body: &[u8]) {
    let body = bytes::Bytes::copy_from_slice(body);
    match leases.call(Call::for_tests(scope(), operation, body)).await {
        Ok(Reply::Whole(body)) => {
            assert!(body.is_empty() || serde_json::from_slice::<Value>(&body).is_ok());
        }
        Ok(Reply::Refused { status, body }) => {
            assert!((400..500).contains(&status), "{operation}: {status}");
            assert!(serde_json::from_slice::<Value>(&body).is_ok());
        }
        Ok(Reply::Stream(_) | Reply::Pieces(_)) => panic!("{operation}: no whole reply"),
        Err(error) => assert!((400..500).contains(&error.status), "{operation}: {error}"),
    }
}
