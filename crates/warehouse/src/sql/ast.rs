//! The statements, as the front parser hands them on.

use datafusion::sql::sqlparser::ast::{Insert, Query};
use hydrant_core::capture::SecretText;
use hydrant_core::warehouse::OnError;

use super::capture::CaptureStatement;
use crate::catalog::{ColumnDef, FormatOptions};
use crate::state::CreateStateTable;

/// A name of one to three parts, folded.
pub(crate) type Name = Vec<String>;

/// OR REPLACE and IF NOT EXISTS of a CREATE.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Create {
    pub(crate) or_replace: bool,
    pub(crate) if_not_exists: bool,
}

#[derive(Debug)]
pub(crate) enum Statement {
    CreateDatabase {
        name: Name,
        create: Create,
        comment: String,
    },
    CreateSchema {
        name: Name,
        create: Create,
        comment: String,
    },
    CreateTable(Box<CreateTable>),
    CreateStateTable(Box<CreateStateTable>),
    CreateStage(Box<CreateStage>),
    CreateFormat {
        name: Name,
        create: Create,
        format: FormatOptions,
        comment: String,
    },
    CreatePipe(Box<CreatePipe>),
    Drop {
        kind: Kind,
        name: Name,
        if_exists: bool,
    },
    Truncate {
        name: Name,
        if_exists: bool,
    },
    AlterPipe {
        name: Name,
        if_exists: bool,
        what: AlterPipe,
    },
    Capture(CaptureStatement),
    Use {
        kind: Kind,
        name: Name,
    },
    Copy(Box<Copy>),
    List {
        location: Location,
        pattern: Option<String>,
    },
    Show(Show),
    Describe {
        kind: Kind,
        name: Name,
    },
    Query(Box<Query>),
    Insert(Box<Insert>),
    /// A statement of the session that takes effect here: words of its answer.
    Session(SessionStatement),
}

impl Statement {
    /// Whether it changes the catalog only, so that it can be decided on again from the start.
    pub(crate) fn is_ddl(&self) -> bool {
        !matches!(self, Self::Query(_) | Self::Insert(_) | Self::Copy(_) | Self::Truncate { .. })
    }
}

/// What a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Database,
    Schema,
    Table,
    Stage,
    Format,
    Pipe,
    Warehouse,
    Role,
}

impl Kind {
    /// As Snowflake writes it in its errors.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Database => "Database",
            Self::Schema => "Schema",
            Self::Table => "Table",
            Self::Stage => "Stage",
            Self::Format => "File format",
            Self::Pipe => "Pipe",
            Self::Warehouse => "Warehouse",
            Self::Role => "Role",
        }
    }
}

#[derive(Debug)]
pub(crate) enum SessionStatement {
    /// BEGIN, COMMIT, ROLLBACK.
    Transaction(&'static str),
    /// ALTER SESSION SET/UNSET: names and values.
    Alter(Vec<(String, Option<String>)>),
}

#[derive(Debug)]
pub(crate) struct CreateTable {
    pub(crate) name: Name,
    pub(crate) create: Create,
    pub(crate) columns: Vec<ColumnDef>,
    pub(crate) comment: String,
    pub(crate) query: Option<Box<Query>>,
}

#[derive(Debug)]
pub(crate) struct CreateStage {
    pub(crate) name: Name,
    pub(crate) create: Create,
    pub(crate) url: String,
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) credentials: Option<(String, SecretText)>,
    pub(crate) format: FormatOptions,
    pub(crate) comment: String,
}

#[derive(Debug)]
pub(crate) struct CreatePipe {
    pub(crate) name: Name,
    pub(crate) create: Create,
    pub(crate) auto_ingest: bool,
    pub(crate) comment: String,
    /// The COPY statement as written.
    pub(crate) definition: String,
    pub(crate) copy: Copy,
}

#[derive(Debug)]
pub(crate) enum AlterPipe {
    Refresh { prefix: String, modified_after: Option<String> },
    Paused(bool),
    Comment(String),
}

/// Where files are: a stage and a path in it, or a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Stage { name: Name, path: String },
    Url(String),
}

/// MATCH_BY_COLUMN_NAME.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MatchBy {
    #[default]
    None,
    CaseSensitive,
    CaseInsensitive,
}

#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) table: Name,
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) from: Location,
    /// `SELECT … FROM @stage`: its items are computed for every document.
    pub(crate) transform: Option<Box<Query>>,
    pub(crate) files: Vec<String>,
    pub(crate) pattern: Option<String>,
    pub(crate) format: FormatOptions,
    pub(crate) on_error: Option<OnError>,
    pub(crate) force: bool,
    pub(crate) match_by: MatchBy,
}

#[derive(Debug)]
pub(crate) struct Show {
    pub(crate) what: Kind,
    pub(crate) like: Option<String>,
    pub(crate) within: Within,
    pub(crate) limit: Option<usize>,
}

#[derive(Debug)]
pub(crate) enum Within {
    /// Nothing said: the current schema, else the current database, else the account.
    Current,
    Account,
    Database(Name),
    Schema(Name),
}
