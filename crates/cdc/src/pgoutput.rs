//! What `pgoutput` sends, protocol version 1 (PostgreSQL: "Logical Replication Message Formats").
//!
//! Nothing is copied: texts and values borrow from the received bytes. A message is checked as a
//! whole when it is read, so that walking its columns afterwards cannot fail. What is not exactly as
//! documented is an error and never skipped: the bytes after it could mean anything.

use hydrant_core::capture::Lsn;

/// Most columns of a table (PostgreSQL: `MaxHeapAttributeNumber`).
pub const COLUMNS_MAX: usize = 1_600;
/// Microseconds from 1970 to 2000, where PostgreSQL's time begins.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// A message is not as `pgoutput` writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends before `what` does.
    #[error("pgoutput: the message ends within {what}")]
    Short {
        /// Part of the message.
        what: &'static str,
    },
    /// There are bytes behind its end.
    #[error("pgoutput: {bytes} bytes behind the end of a message {kind:?}")]
    Trailing {
        /// Its first byte.
        kind: char,
        /// How many.
        bytes: usize,
    },
    /// A byte that chooses a form is none of those known.
    #[error("pgoutput: {what} {found:?} is not known")]
    Unknown {
        /// What it chooses.
        what: &'static str,
        /// The byte.
        found: char,
    },
    /// A number is negative or larger than can be.
    #[error("pgoutput: {found} is no {what}")]
    Range {
        /// What it counts.
        what: &'static str,
        /// The number.
        found: i64,
    },
    /// A name is not UTF-8: the session's `client_encoding` is not UTF8.
    #[error("pgoutput: {what} is not UTF-8")]
    NotUtf8 {
        /// Part of the message.
        what: &'static str,
    },
    /// A value came in binary, which was not asked for.
    #[error("pgoutput: a value in binary form, which was not asked for")]
    Binary,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins.
    Begin(Begin),
    /// A transaction is complete.
    Commit(Commit),
    /// The transaction came from another server.
    Origin {
        /// Position of its commit there.
        commit_lsn: Lsn,
        /// Name of the origin.
        name: &'a str,
    },
    /// What a table looks like in the changes that follow.
    Relation(Relation<'a>),
    /// What a type that is not built in is called.
    Type {
        /// Its OID.
        oid: u32,
        /// Its schema.
        schema: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A row was inserted.
    Insert {
        /// OID of the table.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A row was updated.
    Update {
        /// OID of the table.
        relation: u32,
        /// What is told of the row before.
        old: Option<Old<'a>>,
        /// The row after; values that were not touched may be [`Datum::Unchanged`].
        new: Tuple<'a>,
    },
    /// A row was deleted.
    Delete {
        /// OID of the table.
        relation: u32,
        /// What is told of the row.
        old: Old<'a>,
    },
    /// Tables were emptied.
    Truncate {
        /// OIDs of the tables.
        relations: Vec<u32>,
        /// `CASCADE` was said.
        cascade: bool,
        /// `RESTART IDENTITY` was said.
        restart_identity: bool,
    },
    /// Somebody called `pg_logical_emit_message`.
    Emitted(Emitted<'a>),
}

/// The beginning of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Position of its commit record.
    pub final_lsn: Lsn,
    /// When it was committed, microseconds since the Unix epoch.
    pub commit_time_us: i64,
    /// Its number.
    pub xid: u32,
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Flags; none is in use.
    pub flags: u8,
    /// Position of its commit record.
    pub commit_lsn: Lsn,
    /// Position behind it.
    pub end_lsn: Lsn,
    /// When it was committed, microseconds since the Unix epoch.
    pub commit_time_us: i64,
}

/// What the server tells of a row before its change (`pg_class.relreplident`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The primary key (`d`).
    Default,
    /// Nothing (`n`).
    Nothing,
    /// All of it (`f`).
    Full,
    /// The columns of a unique index (`i`).
    Index,
}

impl Identity {
    /// The letter in `pg_class.relreplident`.
    pub fn letter(self) -> char {
        match self {
            Self::Default => 'd',
            Self::Nothing => 'n',
            Self::Full => 'f',
            Self::Index => 'i',
        }
    }

    /// What a letter in `pg_class.relreplident` means.
    pub fn of(letter: char) -> Option<Self> {
        Some(match letter {
            'd' => Self::Default,
            'n' => Self::Nothing,
            'f' => Self::Full,
            'i' => Self::Index,
            _ => return None,
        })
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Its OID.
    pub oid: u32,
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
    /// What is told of rows before their change.
    pub identity: Identity,
    /// Its published columns, in order.
    pub columns: Vec<Column<'a>>,
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// Whether it is part of the replica identity; with `FULL` every column is.
    pub key: bool,
    /// Its name.
    pub name: &'a str,
    /// OID of its type.
    pub type_oid: u32,
    /// Type modifier, -1 if there is none.
    pub type_modifier: i32,
}

/// What `pg_logical_emit_message` was called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emitted<'a> {
    /// Whether it belongs to a transaction.
    pub transactional: bool,
    /// Its position.
    pub lsn: Lsn,
    /// For whom it is.
    pub prefix: &'a str,
    /// Any bytes.
    pub content: &'a [u8],
}

/// What is told of a row before its change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old<'a> {
    /// The columns of the replica identity. The others are NULL here whatever they were.
    Key(Tuple<'a>),
    /// Every column.
    Full(Tuple<'a>),
}

impl<'a> Old<'a> {
    /// The values.
    pub fn tuple(self) -> Tuple<'a> {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => tuple,
        }
    }
}

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datum<'a> {
    /// NULL.
    Null,
    /// It is stored apart from the row (TOAST) and did not change, so it was not sent.
    Unchanged,
    /// Its text.
    Text(&'a [u8]),
}

/// The values of a row, in the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    columns: usize,
    /// Checked when the message was read.
    bytes: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// Number of its columns.
    pub fn len(&self) -> usize {
        self.columns
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// Its values. Allocates nothing.
    pub fn iter(&self) -> Data<'a> {
        Data { left: self.columns, reader: Reader { rest: self.bytes } }
    }
}

/// Walks the values of a row.
#[derive(Clone, Debug)]
pub struct Data<'a> {
    left: usize,
    reader: Reader<'a>,
}

impl<'a> Iterator for Data<'a> {
    type Item = Datum<'a>;

    fn next(&mut self) -> Option<Datum<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.reader.datum().ok()
    }
}

/// Reads a message.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut reader = Reader { rest: bytes };
    let kind = reader.byte("its first byte")?;
    let message = match kind {
        b'I' => Message::Insert { relation: reader.u32("an OID")?, new: reader.new_tuple()? },
        b'U' => reader.update()?,
        b'D' => Message::Delete { relation: reader.u32("an OID")?, old: reader.old()? },
        b'B' => Message::Begin(Begin {
            final_lsn: reader.lsn()?,
            commit_time_us: reader.time()?,
            xid: reader.u32("a transaction number")?,
        }),
        b'C' => Message::Commit(Commit {
            flags: reader.byte("flags")?,
            commit_lsn: reader.lsn()?,
            end_lsn: reader.lsn()?,
            commit_time_us: reader.time()?,
        }),
        b'R' => Message::Relation(reader.relation()?),
        b'Y' => Message::Type {
            oid: reader.u32("an OID")?,
            schema: schema(reader.text("a schema")?),
            name: reader.text("a type's name")?,
        },
        b'T' => reader.truncate()?,
        b'O' => {
            Message::Origin { commit_lsn: reader.lsn()?, name: reader.text("an origin's name")? }
        }
        b'M' => Message::Emitted(reader.emitted()?),
        other => {
            return Err(Malformed::Unknown { what: "the kind of message", found: other.into() });
        }
    };
    match reader.rest.len() {
        0 => Ok(message),
        bytes => Err(Malformed::Trailing { kind: kind.into(), bytes }),
    }
}

/// The schema of the built-in is sent as an empty text.
fn schema(name: &str) -> &str {
    if name.is_empty() { "pg_catalog" } else { name }
}

#[derive(Clone, Debug)]
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Malformed::Short { what })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Short { what })?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array(what).map(|[byte]| byte)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_be_bytes)
    }

    fn i32(&mut self, what: &'static str) -> Result<i32, Malformed> {
        self.array(what).map(i32::from_be_bytes)
    }

    fn lsn(&mut self) -> Result<Lsn, Malformed> {
        self.array("a position").map(u64::from_be_bytes).map(Lsn)
    }

    fn time(&mut self) -> Result<i64, Malformed> {
        let found = self.array("a time").map(i64::from_be_bytes)?;
        found.checked_add(POSTGRES_EPOCH_US).ok_or(Malformed::Range { what: "time", found })
    }

    /// A count of columns.
    fn columns(&mut self) -> Result<usize, Malformed> {
        let found = self.array("a number of columns").map(i16::from_be_bytes)?;
        let columns = usize::try_from(found).ok().filter(|columns| *columns <= COLUMNS_MAX);
        columns.ok_or(Malformed::Range { what: "number of columns", found: found.into() })
    }

    /// A length or count of four bytes.
    fn length(&mut self, what: &'static str) -> Result<usize, Malformed> {
        let found = self.i32(what)?;
        usize::try_from(found).map_err(|_| Malformed::Range { what, found: found.into() })
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let end = memchr::memchr(0, self.rest).ok_or(Malformed::Short { what })?;
        let text = self.take(end, what)?;
        self.take(1, what)?;
        std::str::from_utf8(text).map_err(|_| Malformed::NotUtf8 { what })
    }

    fn datum(&mut self) -> Result<Datum<'a>, Malformed> {
        Ok(match self.byte("a value")? {
            b't' => {
                let bytes = self.length("length of a value")?;
                Datum::Text(self.take(bytes, "a value")?)
            }
            b'n' => Datum::Null,
            b'u' => Datum::Unchanged,
            b'b' => return Err(Malformed::Binary),
            other => {
                return Err(Malformed::Unknown { what: "the kind of value", found: other.into() });
            }
        })
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, Malformed> {
        let columns = self.columns()?;
        let start = self.rest;
        for _ in 0..columns {
            self.datum()?;
        }
        Ok(Tuple { columns, bytes: &start[..start.len() - self.rest.len()] })
    }

    fn new_tuple(&mut self) -> Result<Tuple<'a>, Malformed> {
        match self.byte("a new row")? {
            b'N' => self.tuple(),
            other => Err(Malformed::Unknown { what: "the kind of new row", found: other.into() }),
        }
    }

    fn old(&mut self) -> Result<Old<'a>, Malformed> {
        match self.byte("an old row")? {
            b'K' => Ok(Old::Key(self.tuple()?)),
            b'O' => Ok(Old::Full(self.tuple()?)),
            other => Err(Malformed::Unknown { what: "the kind of old row", found: other.into() }),
        }
    }

    fn update(&mut self) -> Result<Message<'a>, Malformed> {
        let relation = self.u32("an OID")?;
        let old = match self.rest.first() {
            Some(b'N') => None,
            _ => Some(self.old()?),
        };
        Ok(Message::Update { relation, old, new: self.new_tuple()? })
    }

    fn relation(&mut self) -> Result<Relation<'a>, Malformed> {
        let oid = self.u32("an OID")?;
        let schema = schema(self.text("a schema")?);
        let name = self.text("a table's name")?;
        let letter = char::from(self.byte("a replica identity")?);
        let identity = Identity::of(letter)
            .ok_or(Malformed::Unknown { what: "the replica identity", found: letter })?;
        let count = self.columns()?;
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            let flags = self.byte("a column's flags")?;
            if flags > 1 {
                return Err(Malformed::Unknown { what: "the column flag", found: flags.into() });
            }
            columns.push(Column {
                key: flags == 1,
                name: self.text("a column's name")?,
                type_oid: self.u32("a type")?,
                type_modifier: self.i32("a type modifier")?,
            });
        }
        Ok(Relation { oid, schema, name, identity, columns })
    }

    fn truncate(&mut self) -> Result<Message<'a>, Malformed> {
        const CASCADE: u8 = 1;
        const RESTART_IDENTITY: u8 = 2;
        let count = self.length("number of tables")?;
        let options = self.byte("options")?;
        if options & !(CASCADE | RESTART_IDENTITY) != 0 {
            return Err(Malformed::Unknown { what: "the TRUNCATE option", found: options.into() });
        }
        let bytes = count.saturating_mul(size_of::<u32>());
        let (oids, _) = self.take(bytes, "the tables")?.as_chunks();
        Ok(Message::Truncate {
            relations: oids.iter().map(|oid| u32::from_be_bytes(*oid)).collect(),
            cascade: options & CASCADE != 0,
            restart_identity: options & RESTART_IDENTITY != 0,
        })
    }

    fn emitted(&mut self) -> Result<Emitted<'a>, Malformed> {
        let flags = self.byte("flags")?;
        if flags > 1 {
            return Err(Malformed::Unknown { what: "the flag of a message", found: flags.into() });
        }
        let lsn = self.lsn()?;
        let prefix = self.text("a prefix")?;
        let bytes = self.length("length of a content")?;
        let content = self.take(bytes, "a content")?;
        Ok(Emitted { transactional: flags == 1, lsn, prefix, content })
    }
}
