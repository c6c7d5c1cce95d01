//! `hydrant log dump`.

use std::collections::HashSet;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use hydrant_core::Timestamp;
use hydrant_core::log::ShardUid;
use hydrant_core::record::Record;
use hydrant_core::sequence::{RecordIndex, SequenceNumber};
use hydrant_storage::{ControlReader, Damage, Found, FoundSegment, FrameFound, LogFiles, Wanted};
use serde_json::{Value, json};

use super::names::Names;
use super::{DAMAGED, Looked};

/// Settings of `log dump`.
#[derive(Debug, Args)]
pub(crate) struct Dump {
    #[command(flatten)]
    pub(crate) looked: Looked,

    /// Only the segment with this number.
    #[arg(long, value_name = "N")]
    segment: Option<u64>,

    /// Only records of this stream or delivery stream: its name, or its ARN.
    #[arg(long, value_name = "NAME", conflicts_with = "shard")]
    stream: Option<String>,

    /// Only records of the shard with this number in the log, as the dump prints it.
    #[arg(long, value_name = "UID")]
    shard: Option<u64>,

    /// Only records from here on: a time (2026-01-31T12:00:00Z) or a sequence number.
    #[arg(long, value_name = "PLACE", value_parser = from)]
    from: Option<RecordIndex>,

    /// Only records up to here: those before a time, or up to and with a sequence number.
    #[arg(long, value_name = "PLACE", value_parser = to)]
    to: Option<RecordIndex>,

    /// Print each record as well, and its data: as text where it is text, else in base64.
    #[arg(long)]
    records: bool,
}

fn from(text: &str) -> Result<RecordIndex, String> {
    place(text).map(|(index, _)| index)
}

fn to(text: &str) -> Result<RecordIndex, String> {
    place(text).map(|(index, is_record)| index.plus(is_record.into()))
}

/// The place that a text means, and whether it is that of a record.
fn place(text: &str) -> Result<(RecordIndex, bool), String> {
    if let Ok(number) = text.parse::<SequenceNumber>() {
        return Ok((number.index, true));
    }
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|_| "want a time such as 2026-01-31T12:00:00Z, or a sequence number".to_owned())?;
    let ms =
        u64::try_from(time.as_millisecond()).map_err(|_| "want a time after 1970".to_owned())?;
    Ok((RecordIndex::at(Timestamp::from_millis(ms)), false))
}

/// Prints what is wanted.
pub(super) fn run(dump: &Dump, out: &mut dyn Write) -> Result<ExitCode> {
    let data_dir = &dump.looked.data_dir;
    let files = LogFiles::open(data_dir)?;
    let names = Names::read(&ControlReader::open(data_dir)?)?;
    let shards = match (&dump.stream, dump.shard) {
        (Some(stream), _) => Some(names.shards_of(stream)?.into_iter().collect()),
        (None, Some(shard)) => Some(HashSet::from([ShardUid(shard)])),
        (None, None) => None,
    };
    let wanted =
        Wanted { shards, from: dump.from.unwrap_or_default(), to: dump.to, records: dump.records };
    let segments: Vec<FoundSegment> = files
        .segments()?
        .into_iter()
        .filter(|segment| match (dump.segment, segment.stands_for()) {
            (None, _) => true,
            (Some(no), None) => segment.number() == no,
            (Some(no), Some(first)) => (first..=segment.number()).contains(&no),
        })
        .collect();
    if let (Some(no), true) = (dump.segment, segments.is_empty()) {
        bail!("there is no segment {no} in {}", data_dir.join("log").display());
    }
    let mut printer = Printer { dump, names, wanted: &wanted, out, damaged: false };
    let archived = segments.iter().filter(|segment| segment.is_archived()).count();
    if archived > 0 {
        // Not among what was asked for.
        let said = format!("{archived} segments are in the archive only, and not shown");
        let _ = writeln!(std::io::stderr(), "hydrant: {said}");
    }
    for segment in segments {
        let file = segment.file();
        let goes_on = files.visit::<anyhow::Error>(segment, &wanted, &mut |found| {
            printer.found(&file, found).context("printing").map(|()| true)
        })?;
        if !goes_on {
            break;
        }
    }
    Ok(match printer.damaged {
        true => ExitCode::from(DAMAGED),
        false => ExitCode::SUCCESS,
    })
}

struct Printer<'a> {
    dump: &'a Dump,
    names: Names,
    wanted: &'a Wanted,
    out: &'a mut dyn Write,
    damaged: bool,
}

impl Printer<'_> {
    fn found(&mut self, file: &str, found: Found) -> std::io::Result<()> {
        match found {
            Found::Frame(frame) => self.frame(file, &frame),
            Found::Damage(damage) => self.damage(&damage),
            Found::Torn(at) if self.dump.looked.json => {
                writeln!(self.out, "{}", json!({ "type": "torn", "file": file, "at": at }))
            }
            Found::Torn(at) => writeln!(
                self.out,
                "{file} {at}: a write that was cut short or is under way, never acknowledged"
            ),
        }
    }

    fn damage(&mut self, damage: &Damage) -> std::io::Result<()> {
        self.damaged = true;
        let Damage { file, at, end, what, lost } = damage;
        if self.dump.looked.json {
            let lost: Vec<_> = lost.iter().map(|loss| self.names.loss_json(loss)).collect();
            let told = json!({ "type": "damage", "file": file, "at": at, "end": end, "what": what,
                               "lost": lost });
            return writeln!(self.out, "{told}");
        }
        writeln!(self.out, "{file} {at}: DAMAGED up to byte {end}: {what}")
    }

    fn frame(&mut self, file: &str, frame: &FrameFound) -> std::io::Result<()> {
        let FrameFound { at, bytes, shard, first, count, arrival, group, durable_upto, .. } = frame;
        let sequence_number = self.names.sequence_number(*shard, *first);
        if self.dump.looked.json {
            let mut told = self.names.json(*shard);
            let more = json!({
                "type": "frame", "file": file, "at": at, "bytes": bytes, "records": count,
                "first_sequence_number": sequence_number, "arrival": arrival.to_string(),
                "group": group, "durable_upto": durable_upto,
            });
            told.extend(more.as_object().cloned().unwrap_or_default());
            writeln!(self.out, "{}", Value::Object(told))?;
        } else {
            let name = self.names.shard(*shard);
            writeln!(
                self.out,
                "{file} {at}: shard {} ({name}), {count} records from {sequence_number}, {arrival}, \
                 {bytes} bytes, group {group}, synced up to {durable_upto}",
                shard.0
            )?;
        }
        let Some(records) = &frame.records else { return Ok(()) };
        for record in records.records() {
            let is_before_end = self.wanted.to.is_none_or(|to| record.index < to);
            if record.index >= self.wanted.from && is_before_end {
                self.record(*shard, &record)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, shard: ShardUid, record: &Record<'_>) -> std::io::Result<()> {
        let sequence_number = self.names.sequence_number(shard, record.index);
        let text = text_of(record.data);
        let key = String::from_utf8_lossy(record.partition_key);
        if !self.dump.looked.json {
            let data = match text {
                _ if record.is_ciphertext() => format!("encrypted, {} bytes", record.data.len()),
                Some(text) => format!("text {text:?}"),
                None => format!("base64 {}", STANDARD.encode(record.data)),
            };
            return writeln!(self.out, "  {sequence_number} key {key:?} {data}");
        }
        let mut told = self.names.json(shard);
        let more = json!({
            "type": "record", "sequence_number": sequence_number,
            "arrival": record.arrival.to_string(), "partition_key": key,
        });
        told.extend(more.as_object().cloned().unwrap_or_default());
        match text {
            _ if record.is_ciphertext() => {
                told.insert("encrypted_bytes".to_owned(), record.data.len().into());
            }
            Some(text) => {
                told.insert("text".to_owned(), text.into());
            }
            None => {
                told.insert("base64".to_owned(), STANDARD.encode(record.data).into());
            }
        }
        writeln!(self.out, "{}", Value::Object(told))
    }
}

/// The data as text, if it is some that a terminal can show.
fn text_of(data: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(data).ok()?;
    let is_shown = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    text.chars().all(is_shown).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_time_or_a_sequence_number() {
        let created = Timestamp::from_millis(1_700_000_000_000);
        let index = RecordIndex::at(created).plus(5);
        let number = SequenceNumber::of(3, created, index).to_string();
        assert_eq!(from(&number), Ok(index));
        assert_eq!(to(&number), Ok(index.next()), "with the record itself");
        let time = "2023-11-14T22:13:20Z";
        assert_eq!(
            (from(time), to(time)),
            (Ok(RecordIndex::at(created)), Ok(RecordIndex::at(created)))
        );
        assert!(from("yesterday").unwrap_err().contains("want a time"));
        assert!(from("1960-01-01T00:00:00Z").unwrap_err().contains("after 1970"));
    }

    #[test]
    fn only_what_a_terminal_shows_is_text() {
        assert_eq!(text_of("grün\n".as_bytes()), Some("grün\n"));
        assert_eq!(text_of(b"\x1b[2J"), None);
        assert_eq!(text_of(&[0xff]), None);
    }
}
