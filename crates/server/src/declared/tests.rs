//! What the settings file declares is made once, taken up where it can be, and never shown.

use hydrant_core::capture::{AlterSource, Capture, SourceState};
use hydrant_core::control::ControlStore;
use hydrant_testkit::{MemoryControl, RecordingCapture};

use serde_json::json;

use super::*;
use crate::config::tests::settings;

const FILE: &str = r#"
tail-cache-mib = 7
[[secret]]
name = "pg_password"
user = "postgres"
password = "hush"
[[connection]]
name = "pg"
host = "db.example.com"
database = "postgres"
secret = "pg_password"
ssl_mode = "require"
[[source]]
name = "mz_source"
connection = "pg"
publications = ["mz_source"]
tables = ["Twitch.Chat", { table = "\"Mixed\".t", partition_by = ["Channel"] }]
stream = "twitch"
envelope = "dms"
"#;

async fn apply_at(ms: u64, file: &str, capture: &RecordingCapture) -> Result<()> {
    let control = MemoryControl::new();
    apply(&settings(file, &[])?, capture, &control, Timestamp::from_millis(ms)).await
}

async fn apply_file(file: &str, capture: &RecordingCapture) -> Result<()> {
    apply_at(1, file, capture).await
}

#[tokio::test]
async fn everything_is_made_at_the_first_start_and_nothing_at_the_second() {
    let capture = RecordingCapture::default();
    apply_file(FILE, &capture).await.unwrap();
    let made = capture.sources().await.unwrap().remove(0).settings;
    assert_eq!((made.name.as_str(), made.connection.as_str()), ("MZ_SOURCE", "PG"));
    assert_eq!((made.stream.as_str(), made.scope.region.as_str()), ("twitch", "us-east-1"));
    assert_eq!(
        (made.envelope, made.snapshot, made.shards),
        (Envelope::Dms, SnapshotMode::Initial, 1)
    );
    let tables: Vec<_> = made.tables.unwrap().iter().map(|t| t.table.to_string()).collect();
    assert_eq!(tables, ["twitch.chat", "Mixed.t"]);
    assert_eq!(capture.connections().await.unwrap()[0].ssl_mode, SslMode::Require);

    capture.show("MZ_SOURCE", SourceState::Streaming, "", Vec::new());
    apply_at(2, FILE, &capture).await.unwrap();
    let first = Timestamp::from_millis(1);
    assert_eq!(capture.secrets().await.unwrap()[0].created, first);
    assert_eq!(capture.connections().await.unwrap()[0].created, first);
    let changed = |call: &&String| call.contains("_source");
    let calls = capture.calls();
    assert_eq!(calls.iter().filter(changed).collect::<Vec<_>>(), ["create_source MZ_SOURCE"]);
}

#[tokio::test]
async fn what_changed_is_taken_up_unless_it_would_cost_the_slot() {
    let capture = RecordingCapture::default();
    apply_file(FILE, &capture).await.unwrap();
    let changed = FILE
        .replace("hush", "other")
        .replace("\"Twitch.Chat\"", "\"twitch.chat\", \"added\"")
        .replace("require", "verify-full");
    apply_file(&changed, &capture).await.unwrap();
    assert_eq!(capture.password("PG_PASSWORD").unwrap().reveal(), "other");
    assert_eq!(capture.connections().await.unwrap()[0].ssl_mode, SslMode::VerifyFull);
    let tables = capture.sources().await.unwrap().remove(0).settings.tables.unwrap();
    assert!(tables.iter().any(|t| t.table.to_string() == "public.added"));

    for (old, new, word) in [
        ("dms", "debezium", "envelope"),
        ("\"twitch\"", "\"elsewhere\"", "stream"),
        ("[\"Channel\"]", "[\"id\"]", "partition_by"),
    ] {
        let refused = apply_file(&changed.replace(old, new), &capture).await.unwrap_err();
        let refused = format!("{refused:#}");
        assert!(refused.contains(word) && refused.contains("MZ_SOURCE"), "{refused}");
    }
    let after = capture.sources().await.unwrap().remove(0).settings;
    assert_eq!((after.envelope, after.stream.as_str()), (Envelope::Dms, "twitch"));
}

#[tokio::test]
async fn what_is_declared_no_more_stays() {
    let (capture, control) = (RecordingCapture::default(), MemoryControl::new());
    let start = async |file: &str| {
        apply(&settings(file, &[]).unwrap(), &capture, &control, Timestamp::ZERO).await.unwrap();
        let row = control.get("settings/declared").await.unwrap();
        row.map(|row| row.json::<serde_json::Value>("settings/declared").unwrap())
    };
    assert_eq!(start("").await, None, "nothing is written for who declares nothing");
    let all = start(FILE).await;
    let less = FILE.replace("\"Twitch.Chat\", ", "");
    assert_eq!(start(&less).await, all);
    assert_eq!(capture.sources().await.unwrap()[0].settings.tables.as_ref().unwrap().len(), 2);
    assert_eq!(start("").await, all, "it is still there, and said at each start");
    assert_eq!(capture.secrets().await.unwrap().len(), 1);
    capture.drop_source("MZ_SOURCE").await.unwrap();
    let left = start("").await.unwrap();
    assert_eq!((&left["sources"], &left["secrets"]), (&json!([]), &json!(["PG_PASSWORD"])));
}

#[tokio::test]
async fn a_table_dropped_by_a_statement_and_still_declared_is_back() {
    let capture = RecordingCapture::default();
    apply_file(FILE, &capture).await.unwrap();
    let table = PgTable { schema: "twitch".into(), table: "chat".into() };
    capture.alter_source("MZ_SOURCE", AlterSource::DropTable(table)).await.unwrap();
    apply_file(FILE, &capture).await.unwrap();
    assert_eq!(capture.sources().await.unwrap()[0].settings.tables.as_ref().unwrap().len(), 2);
}

#[tokio::test]
async fn a_name_is_declared_once() {
    let twice =
        "[[secret]]\nname = \"s\"\npassword = \"x\"\n[[secret]]\nname = \"S\"\npassword = \"x\"";
    let refused = apply_file(twice, &RecordingCapture::default()).await.unwrap_err();
    assert!(refused.to_string().contains("[[secret]] S twice"), "{refused}");
}

#[test]
fn mistakes_are_refused_without_the_password() {
    for (file, word) in [
        ("[[secret]]\nname = \"s\"\npassword = 12345678", "wants a text"),
        ("[[secret]]\nname = \"s\"\npasword = \"12345678\"", "pasword"),
        ("[[secret]]\nname = \"s\"\npassword = \"12345678\"\npassword_env = \"X\"", "one of"),
        ("[[secret]]\nname = \"s\"\npassword = \"12345678", "line 3"),
        ("[[secret]]\nname = \"s\"", "one of"),
        ("[[secret]]\nname = \"s\"\npassword = \"\"", "empty"),
        ("[[secret]]\nname = \"s\"\npassword_file = \"/does/not/exist\"", "cannot read"),
        ("[[secret]]\nname = \"s\"\npassword_env = \"HYDRANT_NOT_SET\"", "HYDRANT_NOT_SET"),
        ("[secret]\nname = \"s\"", "[[secret]]"),
        ("[[source]]\nname = \"s\"\ntables = [1]", "want tables"),
        ("[[source]]\nname = \"s\"\nenvelope = \"avro\"", "avro"),
    ] {
        let refused = format!("{:#}", settings(file, &[]).unwrap_err());
        assert!(refused.contains(word) && !refused.contains("12345678"), "{file}: {refused}");
    }
    let shown = format!("{:?}", settings(FILE, &[]).unwrap());
    assert!(shown.contains("MZ") || shown.contains("mz_source"));
    assert!(!shown.contains("hush"));
}
