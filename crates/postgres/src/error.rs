//! What a server's error means for a source: pass, wait or be mended by somebody.

use std::borrow::Cow;

use hydrant_core::capture::Failure;

/// Longest text of a server's error that is kept, in bytes.
const SERVER_TEXT_BYTES_MAX: usize = 2_000;

/// What went wrong with a server. Its text is for the person who runs the source: it says what the
/// server said and what to do, and never holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// It passes. The caller's duty: connect again, after 0.5 to 30 seconds.
    #[error("{0}")]
    Transient(String),
    /// Somebody else reads from the slot. The caller's duty: try again, after 1 to 30 seconds.
    #[error("{0}")]
    SlotBusy(String),
    /// Trying again does not mend it.
    #[error("{text}")]
    Failed {
        /// Which kind it is.
        failure: Failure,
        /// What happened, and what to do.
        text: String,
    },
}

impl ServerError {
    /// The failure, unless the error passes on its own.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Failed { failure, .. } => Some(*failure),
            Self::Transient(_) | Self::SlotBusy(_) => None,
        }
    }

    pub(super) fn failed(failure: Failure, text: impl Into<String>) -> Self {
        Self::Failed { failure, text: text.into() }
    }

    /// The server answered something that its protocol does not have at this place.
    pub(super) fn unexpected(what: &str) -> Self {
        Self::Transient(format!("the server did not speak PostgreSQL's protocol: {what}"))
    }
}

impl From<std::io::Error> for ServerError {
    fn from(error: std::io::Error) -> Self {
        Self::Transient(format!("the connection to the server broke: {error}"))
    }
}

/// What was being done when the server answered with an error. The same SQLSTATE means one thing
/// before a slot exists and another while it streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum During {
    Login,
    Query,
    CreateSlot,
    DropSlot,
    Start,
    Stream,
    Snapshot,
}

/// An ErrorResponse. PostgreSQL: "Error and Notice Message Fields".
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) detail: String,
    pub(super) hint: String,
    /// Where it happened: in a stream the slot and the position, as its output plugin has them.
    pub(super) context: String,
    /// The routine that raised it: unlike the message never translated.
    pub(super) routine: String,
}

impl Report {
    /// Reads the fields of an ErrorResponse's body. What is not one gives an empty report, which
    /// classifies as passing.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut report = Self::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, value)) = field.split_first() else { break };
            let kept = &value[..value.len().min(SERVER_TEXT_BYTES_MAX)];
            let value = String::from_utf8_lossy(kept).into_owned();
            match kind {
                b'C' => report.code = value,
                b'M' => report.message = value,
                b'D' => report.detail = value,
                b'H' => report.hint = value,
                b'W' => report.context = value,
                b'R' => report.routine = value,
                _ => {}
            }
        }
        report
    }

    /// Says where it happened, if the server does not.
    pub(super) fn within(mut self, what: &str) -> Self {
        if self.context.is_empty() {
            what.clone_into(&mut self.context);
        }
        self
    }

    /// What the server said, all of it.
    fn said(&self) -> String {
        let mut said = format!("PostgreSQL says: {} (SQLSTATE {})", self.message, self.code);
        let told = [("DETAIL", &self.detail), ("HINT", &self.hint), ("CONTEXT", &self.context)];
        for (label, text) in told {
            if !text.is_empty() {
                said.push_str(&format!(" {label}: {text}"));
            }
        }
        said
    }

    fn about_publication(&self) -> bool {
        self.routine == "get_publication_oid" || self.routine == "GetPublicationByName"
    }

    /// What it means. <https://www.postgresql.org/docs/current/errcodes-appendix.html>
    pub(super) fn classify(&self, during: During) -> ServerError {
        let said = self.said();
        let Some((failure, advice)) = self.failure(during) else {
            return match (during, self.code.as_str()) {
                (During::Start | During::DropSlot, "55006") => ServerError::SlotBusy(said),
                _ => ServerError::Transient(said),
            };
        };
        let text = if advice.is_empty() { said } else { format!("{said}. {advice}") };
        ServerError::failed(failure, text)
    }

    /// The failure and what to do about it; `None` if it passes.
    fn failure(&self, during: During) -> Option<(Failure, Cow<'static, str>)> {
        let class = self.code.get(..2).unwrap_or_default();
        let found = match (during, class, self.code.as_str()) {
            (_, "28", _) => (
                Failure::Authentication,
                "Check the connection's USER and PASSWORD SECRET, the role's LOGIN attribute, and \
                 the lines for this database in pg_hba.conf",
            ),
            (_, _, "42501") => (Failure::Permission, "Grant the role what is missing"),
            (_, _, "3D000" | "57P04") => {
                (Failure::Other, "Name a database that exists in the connection")
            }
            (During::CreateSlot, _, "55000") | (_, _, "55000")
                if during == During::CreateSlot || self.message.contains("wal_level") =>
            {
                (Failure::WalLevel, WAL_LEVEL_ADVICE)
            }
            (During::CreateSlot, _, "53400") => (
                Failure::SlotsExhausted,
                "Drop a replication slot that nobody uses, or raise max_replication_slots",
            ),
            (During::CreateSlot, _, "42710") => (
                Failure::SlotNotOurs,
                "Drop that slot, or give the source another with SLOT, or take it with SLOT … ADOPT",
            ),
            (_, _, "42704") if self.about_publication() => {
                (Failure::PublicationDropped, PUBLICATION_ADVICE)
            }
            (During::Start, _, "42704" | "55000" | "58P01") => (Failure::SlotLost, LOST_ADVICE),
            (During::Stream, _, "42704") => (Failure::PublicationDropped, PUBLICATION_ADVICE),
            (During::Stream, _, "55000" | "58P01") => (Failure::SlotLost, LOST_ADVICE),
            (During::Stream, "22", _) => (
                Failure::Undecodable,
                "The server cannot send the change, and nothing is skipped. It stays in the log as it \
                 was written: mend the row, then ALTER SOURCE … RESNAPSHOT",
            ),
            (During::Snapshot, "22", _) => (
                Failure::Undecodable,
                "The server cannot send the row, and nothing is skipped: mend it, then ALTER SOURCE … \
                 RESNAPSHOT",
            ),
            // A table that was dropped or altered since it was looked at: the next look sees it.
            (During::Snapshot, "42", _) => return None,
            (_, "0A" | "22" | "42" | "54", _) => (Failure::Other, ""),
            _ => return None,
        };
        Some((found.0, Cow::Borrowed(found.1)))
    }
}

pub(super) const WAL_LEVEL_ADVICE: &str =
    "Run ALTER SYSTEM SET wal_level = logical; and restart PostgreSQL";
pub(super) const LOST_ADVICE: &str = "Changes are missing from here on, so the source does not go \
     on by itself: ALTER SOURCE … RESNAPSHOT begins anew with a new slot";
pub(super) const PUBLICATION_ADVICE: &str = "Create the publication again, then ALTER SOURCE … \
     RESNAPSHOT: the old slot cannot read past the time when there was none";

#[cfg(test)]
mod tests {
    use super::*;

    fn report(code: &str, message: &str, routine: &str) -> Report {
        let body = format!("SERROR\0VERROR\0C{code}\0M{message}\0Dthe detail\0R{routine}\0\0");
        Report::read(body.as_bytes())
    }

    #[test]
    fn one_sqlstate_means_what_is_being_done() {
        let kind = |code, routine, during| report(code, "no", routine).classify(during).failure();
        assert_eq!(kind("42704", "ReplicationSlotAcquire", During::Start), Some(Failure::SlotLost));
        let gone = Some(Failure::PublicationDropped);
        assert_eq!(kind("42704", "get_publication_oid", During::Start), gone);
        assert_eq!(kind("42704", "", During::Stream), gone);
        assert_eq!(kind("55000", "", During::CreateSlot), Some(Failure::WalLevel));
        assert_eq!(kind("55000", "", During::Start), Some(Failure::SlotLost));
        assert_eq!(kind("42P01", "", During::Snapshot), None);
        assert_eq!(kind("57P03", "", During::Login), None);
        assert_eq!(kind("28P01", "", During::Login), Some(Failure::Authentication));
        let busy = report("55006", "slot is active", "").classify(During::Start);
        assert!(matches!(busy, ServerError::SlotBusy(_)), "{busy:?}");
    }

    #[test]
    fn the_text_has_the_detail_and_an_advice() {
        let text = report("28P01", "password authentication failed", "").classify(During::Login);
        let text = text.to_string();
        assert!(text.contains("SQLSTATE 28P01) DETAIL: the detail. Check"), "{text}");
    }

    #[test]
    fn garbage_is_no_report() {
        let empty = Report::read(&[]).classify(During::Stream);
        assert!(matches!(empty, ServerError::Transient(_)));
        assert_eq!(Report::read(b"C\xff\xfe").code, "\u{fffd}\u{fffd}");
    }
}
