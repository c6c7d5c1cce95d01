//! Statements about change data capture, done through its port.

mod create_sql;
mod show;
#[cfg(test)]
mod tests;

use hydrant_core::Timestamp;
use hydrant_core::arn::Arn;
use hydrant_core::capture::{
    AlterSource, Capture, CaptureError, Connection, IfExists, Secret, SourceReport, SourceSettings,
};
use hydrant_core::names::{Scope, StreamName};

pub(crate) use show::head;

use crate::answer;
use crate::catalog::shown;
use crate::engine::Engine;
use crate::error::{SqlResult, error, invalid_value, no_such, syntax, unsupported};
use crate::session::{Answer, SqlError};
use crate::sql::capture::{CaptureKind, CaptureStatement, CreateSource};

impl From<CaptureError> for SqlError {
    fn from(e: CaptureError) -> Self {
        match e {
            CaptureError::NotFound { kind, name } => no_such(kind, &shown(&name)),
            CaptureError::Exists { name, .. } => crate::error::already_exists(&shown(&name)),
            CaptureError::InUse { .. } => {
                error(1008, "2BP01", format!("SQL compilation error:\n{e}"))
            }
            CaptureError::Invalid(text) => {
                error(1008, "22023", format!("SQL compilation error:\n{text}"))
            }
            CaptureError::Unavailable(_) => error(300_005, "57P03", e.to_string()),
        }
    }
}

impl Engine {
    fn capture(&self) -> SqlResult<&dyn Capture> {
        let follow = self.following.follow.as_ref();
        follow
            .map(|f| f.capture.as_ref())
            .ok_or_else(|| unsupported("change data capture; this server was started without it"))
    }

    pub(crate) async fn run_capture(&self, statement: CaptureStatement) -> SqlResult<Answer> {
        let capture = self.capture()?;
        match statement {
            CaptureStatement::CreateSecret { secret, there } => {
                self.create_secret(capture, secret, there).await
            }
            CaptureStatement::CreateConnection { connection, there } => {
                self.create_connection(capture, connection, there).await
            }
            CaptureStatement::CreateSource(source) => self.create_source(capture, *source).await,
            CaptureStatement::Alter { name, change } => alter(capture, &name, change).await,
            CaptureStatement::Drop { kind, name, if_exists } => {
                drop_one(capture, kind, &name, if_exists).await
            }
            CaptureStatement::Show { what, like, limit } => {
                show::show(capture, what, like.as_deref(), limit).await
            }
            CaptureStatement::Describe { kind, name } => show::describe(capture, kind, &name).await,
            CaptureStatement::ShowCreate { kind, name } => {
                let near = self.stream_scope.as_ref();
                show::show_create(capture, kind, &name, near).await
            }
        }
    }

    async fn create_secret(
        &self,
        capture: &dyn Capture,
        secret: Secret,
        there: IfExists,
    ) -> SqlResult<Answer> {
        if secret.password.reveal().is_empty() || secret.user.as_deref() == Some("") {
            return Err(syntax("a secret is not empty"));
        }
        let name = secret.name.clone();
        let kept = there == IfExists::Keep
            && capture.secrets().await?.iter().any(|other| other.name == name);
        let secret = Secret { created: self.now(), ..secret };
        capture.create_secret(secret, there).await?;
        answer::done("CREATE SECRET", created(CaptureKind::Secret, &name, kept))
    }

    async fn create_connection(
        &self,
        capture: &dyn Capture,
        connection: Connection,
        there: IfExists,
    ) -> SqlResult<Answer> {
        let name = connection.name.clone();
        let kept = there == IfExists::Keep
            && capture.connections().await?.iter().any(|other| other.name == name);
        let connection = Connection { created: self.now(), ..connection };
        capture.create_connection(connection, there).await?;
        answer::done("CREATE CONNECTION", created(CaptureKind::Connection, &name, kept))
    }

    async fn create_source(
        &self,
        capture: &dyn Capture,
        create: CreateSource,
    ) -> SqlResult<Answer> {
        let (name, there) = (create.name.clone(), create.there);
        let kept = there == IfExists::Keep
            && capture.sources().await?.iter().any(|other| other.settings.name == name);
        let report = capture.create_source(self.settings(create)?, there).await?;
        let status = format!("{} {}", created(CaptureKind::Source, &name, kept), told(&report));
        answer::done("CREATE SOURCE", status)
    }

    fn settings(&self, create: CreateSource) -> SqlResult<SourceSettings> {
        let (scope, stream) = self.stream(&create.stream)?;
        Ok(SourceSettings {
            name: create.name,
            connection: create.connection,
            publications: create.publications,
            slot: create.slot,
            tables: create.tables,
            left_out: create.left_out,
            scope,
            stream,
            shards: create.shards,
            envelope: create.envelope,
            snapshot: create.snapshot,
            oversize: create.oversize,
            transactions: create.transactions,
            on_slot_loss: create.on_slot_loss,
            comment: create.comment,
        })
    }

    /// The stream of a name or an ARN.
    fn stream(&self, text: &str) -> SqlResult<(Scope, StreamName)> {
        let bad = || invalid_value(text, "STREAM");
        if text.starts_with("arn:") {
            let arn: Arn = text.parse().map_err(|_| bad())?;
            let name = arn.name_of("stream").filter(|_| arn.service == "kinesis");
            let name = name.and_then(|name| name.parse().ok()).ok_or_else(bad)?;
            return Ok((arn.scope, name));
        }
        let name = text.parse().map_err(|_| bad())?;
        let scope = self
            .stream_scope
            .clone()
            .ok_or_else(|| syntax("the stream's account and region are not known; give its ARN"))?;
        Ok((scope, name))
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

async fn alter(capture: &dyn Capture, name: &str, change: AlterSource) -> SqlResult<Answer> {
    let words = match &change {
        AlterSource::Pause => "PAUSE SOURCE",
        AlterSource::Resume => "RESUME SOURCE",
        _ => "ALTER SOURCE",
    };
    let report = capture.alter_source(name, change).await?;
    answer::done(words, format!("Source {} changed. {}", shown(name), told(&report)))
}

async fn drop_one(
    capture: &dyn Capture,
    kind: CaptureKind,
    name: &str,
    if_exists: bool,
) -> SqlResult<Answer> {
    let dropped = |found: bool| found.then(|| format!("{} successfully dropped.", shown(name)));
    let (words, status) = match kind {
        CaptureKind::Secret => ("DROP SECRET", dropped(capture.drop_secret(name).await?)),
        CaptureKind::Connection => {
            ("DROP CONNECTION", dropped(capture.drop_connection(name).await?))
        }
        CaptureKind::Source => ("DROP SOURCE", capture.drop_source(name).await?),
    };
    match status {
        Some(status) => answer::done(words, status),
        None if if_exists => answer::done(
            words,
            "Drop statement executed successfully (the object is already dropped).",
        ),
        None => Err(no_such(kind.noun(), &shown(name))),
    }
}

fn created(kind: CaptureKind, name: &str, kept: bool) -> String {
    match kept {
        true => format!("{} already exists, statement succeeded.", shown(name)),
        false => format!("{} {} successfully created.", kind.noun(), shown(name)),
    }
}

/// What a source does, and why.
fn told(report: &SourceReport) -> String {
    let state = report.state.name();
    if report.reason.is_empty() {
        format!("It is {state}.")
    } else {
        format!("It is {state}: {}", report.reason)
    }
}
