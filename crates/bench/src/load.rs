//! Bodies of puts, made before they are measured.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hydrant_core::Random;

use crate::settings::Target;

/// Bytes of a moment at the beginning of a record's data: nine, which base64 makes twelve letters.
pub(crate) const MOMENT_BYTES: usize = 9;
/// The same in base64.
pub(crate) const MOMENT_LETTERS: usize = 12;
/// Bodies that a connection takes turns with, at most.
const BODIES_MAX: usize = 8;
/// Memory for all of them, at most.
const BODIES_BYTES_MAX: usize = 256 << 20;

/// Makes the bodies of one connection's puts.
pub(crate) struct Load {
    random: Random,
    stream: String,
    record_bytes: usize,
    batch: usize,
    bodies: usize,
}

impl Load {
    /// The load of connection `number`: its keys and data are its own.
    pub(crate) fn new(target: &Target, number: u16) -> Self {
        let (record_bytes, batch) = (target.record_bytes as usize, usize::from(target.batch()));
        let bytes = batch * (record_bytes * 4 / 3 + 64) * usize::from(target.connections);
        Self {
            random: Random::from_seed(target.seed.wrapping_mul(1 << 16) ^ u64::from(number)),
            stream: target.stream.clone(),
            record_bytes,
            batch,
            bodies: (BODIES_BYTES_MAX / bytes).clamp(1, BODIES_MAX),
        }
    }

    /// What is put with: PutRecord for one record at a time.
    pub(crate) fn operation(&self) -> &'static str {
        if self.batch == 1 { "PutRecord" } else { "PutRecords" }
    }

    /// Bodies to take turns with.
    pub(crate) fn bodies(&self) -> Vec<Bytes> {
        (0..self.bodies).map(|_| self.body(0, self.batch)).collect()
    }

    /// A body of `records` records whose data begins with `moment`.
    pub(crate) fn body(&self, moment: u64, records: usize) -> Bytes {
        let mut data = vec![0; self.record_bytes];
        let mut out = String::with_capacity(records * (self.record_bytes * 4 / 3 + 64) + 64);
        out.push('{');
        if self.batch > 1 {
            out.push_str("\"Records\":[");
        }
        for n in 0..records {
            self.random.fill(&mut data);
            data[..MOMENT_BYTES].fill(0);
            data[1..MOMENT_BYTES].copy_from_slice(&moment.to_be_bytes());
            if self.batch > 1 {
                out.push_str(if n == 0 { "{" } else { ",{" });
            }
            out.push_str("\"Data\":\"");
            STANDARD.encode_string(&data, &mut out);
            out.push_str(&format!("\",\"PartitionKey\":\"{:020}\"", self.random.next_u64()));
            if self.batch > 1 {
                out.push('}');
            }
        }
        out.push_str(if self.batch > 1 { "]," } else { "," });
        out.push_str(&format!("\"StreamName\":\"{}\"}}", self.stream));
        out.into()
    }
}

/// The moment that a record's data in base64 begins with.
pub(crate) fn moment(data: &str) -> Option<u64> {
    let mut bytes = [0; MOMENT_BYTES];
    let letters = data.as_bytes().get(..MOMENT_LETTERS)?;
    let length = STANDARD.decode_slice(letters, &mut bytes).ok()?;
    (length == MOMENT_BYTES).then(|| {
        let (_, moment) = bytes.split_at(1);
        moment.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        target: Target,
    }

    fn target(arguments: &[&str]) -> Target {
        Cli::parse_from([&["bench"], arguments].concat()).target
    }

    #[test]
    fn a_body_is_what_the_api_takes() {
        let load = Load::new(&target(&["--record-bytes", "100", "--batch", "3"]), 0);
        let body: Value = serde_json::from_slice(&load.body(77, 3)).unwrap();
        assert_eq!(body["StreamName"], "hydrant-bench");
        let records = body["Records"].as_array().unwrap();
        assert_eq!((load.operation(), records.len()), ("PutRecords", 3));
        for record in records {
            assert_eq!(record["PartitionKey"].as_str().unwrap().len(), 20);
            let data = record["Data"].as_str().unwrap();
            assert_eq!((STANDARD.decode(data).unwrap().len(), moment(data)), (100, Some(77)));
        }
    }

    #[test]
    fn one_record_at_a_time_is_put_record() {
        let load = Load::new(&target(&["--batch", "1"]), 0);
        let body: Value = serde_json::from_slice(&load.body(u64::MAX, 1)).unwrap();
        assert_eq!(load.operation(), "PutRecord");
        assert_eq!(moment(body["Data"].as_str().unwrap()), Some(u64::MAX));
        assert!(body["PartitionKey"].is_string() && body["StreamName"].is_string());
    }

    #[test]
    fn a_seed_repeats_its_load_and_connections_differ() {
        let body = |seed: &str, number| {
            let load = Load::new(&target(&["--seed", seed, "--record-bytes", "64"]), number);
            load.body(0, 2)
        };
        assert_eq!(body("5", 1), body("5", 1));
        assert_ne!(body("5", 1), body("5", 2));
        assert_ne!(body("5", 1), body("6", 1));
    }

    #[test]
    fn what_is_no_moment_is_none() {
        assert_eq!(moment("short"), None);
        assert_eq!(moment("????????????"), None);
    }
}
