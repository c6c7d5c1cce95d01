//! `hydrant demo`: the whole pipeline on a week of real earthquakes, through the public APIs.

mod client;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_postgres::SimpleQueryMessage;

use crate::wiring::Running;
use client::Client;

/// USGS, "All Earthquakes, Past Week" of 7 February 2018: a GeoJSON feature a line, public domain.
const FEATURES: &str = include_str!("../../../../data/usgs-earthquakes.ndjson");
const STREAM: &str = "earthquakes";
const BUCKET: &str = "lake";
const DELIVERY: &str = "earthquakes-to-lake";
const DATABASE: &str = "earthquakes";
const BATCH: usize = 500;
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

const STRONGEST: &str = "select q:properties.mag::float as mag, q:properties.place::string as place, \
q:geometry.coordinates[2]::float as depth_km from quakes order by mag desc nulls last, place limit 10";
const BY_HOUR: &str = "select hour(to_timestamp(q:properties.time::number, 3)) as hour, \
count(*) as quakes, max(q:properties.mag::float) as strongest from quakes group by 1 order by 1";

/// Runs the pipeline against a server of this process, over the network, and prints what happens.
pub(crate) async fn run(server: &Running) -> Result<()> {
    let client = Client::new(server.endpoints.aws.clone(), &server.own_key)?;
    let sql = Sql::connect(server).await?;
    let total = FEATURES.lines().count();
    say(&format!("{} earthquakes of one week, from a producer to SQL\n", thousands(total)));

    clear(&client).await?;
    create(&client).await?;
    statements(&sql, server).await?;

    let started = Instant::now();
    let put = produce(&client, total).await?;
    ensure!(put == total, "{put} of {total} records were acknowledged");
    follow(&client, &sql, total).await?;
    say(&format!(
        "\nFrom the first put to the last row: {:.1} s.\n",
        started.elapsed().as_secs_f64()
    ));

    let counts = sql.rows("select count(*), count(distinct q:id::string) from quakes").await?;
    let want = vec![vec![total.to_string(), total.to_string()]];
    ensure!(counts[1..] == want, "the table holds {:?}, wanted {want:?}", &counts[1..]);
    say(&format!("All {} are in the table, each once.", thousands(total)));

    say(&format!("\nThe ten strongest\n    {STRONGEST}\n"));
    table(&sql.rows(STRONGEST).await?);
    say(&format!("\nBy hour of the day (UTC)\n    {BY_HOUR}\n"));
    table(&sql.rows(BY_HOUR).await?);
    try_next(server);
    Ok(())
}

/// Takes away what an earlier demo left in this data directory.
async fn clear(client: &Client) -> Result<()> {
    let gone = "ResourceNotFoundException";
    let delivery = json!({ "DeliveryStreamName": DELIVERY });
    let stream = json!({ "StreamName": STREAM });
    for (delete, describe, name) in [
        (
            "Firehose_20150804.DeleteDeliveryStream",
            "Firehose_20150804.DescribeDeliveryStream",
            delivery,
        ),
        ("Kinesis_20131202.DeleteStream", "Kinesis_20131202.DescribeStreamSummary", stream),
    ] {
        client.call_unless(gone, delete, &name).await?;
        until(describe, async || Ok(client.call_unless(gone, describe, &name).await?.is_none()))
            .await?;
    }
    client.create_bucket(BUCKET).await?;
    let bucket = client.bucket(BUCKET)?;
    let left: Vec<_> = bucket.list(None).try_collect().await?;
    for object in left.iter().filter(|o| o.location.as_ref().contains(DELIVERY)) {
        bucket.delete(&object.location).await?;
    }
    Ok(())
}

async fn create(client: &Client) -> Result<()> {
    let create = json!({ "StreamName": STREAM, "ShardCount": 2 });
    client.call("Kinesis_20131202.CreateStream", &create).await?;
    let describe = json!({ "StreamName": STREAM });
    let mut arn = String::new();
    until("the stream", async || {
        let reply = client.call("Kinesis_20131202.DescribeStreamSummary", &describe).await?;
        let summary = &reply["StreamDescriptionSummary"];
        text(&summary["StreamARN"]).clone_into(&mut arn);
        Ok(summary["StreamStatus"] == "ACTIVE")
    })
    .await?;
    step("stream", STREAM, "2 shards");
    step("bucket", BUCKET, "made if it was not there");

    let role = "arn:aws:iam::000000000000:role/demo";
    client
        .call(
            "Firehose_20150804.CreateDeliveryStream",
            &json!({
                "DeliveryStreamName": DELIVERY,
                "DeliveryStreamType": "KinesisStreamAsSource",
                "KinesisStreamSourceConfiguration": { "KinesisStreamARN": arn, "RoleARN": role },
                "ExtendedS3DestinationConfiguration": {
                    "BucketARN": format!("arn:aws:s3:::{BUCKET}"),
                    "RoleARN": role,
                    "BufferingHints": { "SizeInMBs": 1, "IntervalInSeconds": 1 },
                    "CompressionFormat": "GZIP",
                },
            }),
        )
        .await?;
    let describe = json!({ "DeliveryStreamName": DELIVERY });
    until("the delivery stream", async || {
        let reply = client.call("Firehose_20150804.DescribeDeliveryStream", &describe).await?;
        Ok(reply["DeliveryStreamDescription"]["DeliveryStreamStatus"] == "ACTIVE")
    })
    .await?;
    step("delivery stream", DELIVERY, "taps the stream; 1 MiB or 1 s; GZIP");
    Ok(())
}

/// The stage and the pipe are the statements of a Snowflake tutorial, with these names.
async fn statements(sql: &Sql, server: &Running) -> Result<()> {
    let key = &server.own_key;
    let shown = if server.open { key.secret.0.as_str() } else { "…" };
    let stage = |secret: &str| {
        format!(
            "create or replace stage {DATABASE}.public.quake_stage\nurl='s3://{BUCKET}/'\n\
             credentials = (AWS_KEY_ID='{}' AWS_SECRET_KEY='{secret}')",
            key.name
        )
    };
    let pipe = format!(
        "create or replace pipe {DATABASE}.public.quake_pipe auto_ingest=true as\n\
         copy into {DATABASE}.public.quakes\nfrom @{DATABASE}.public.quake_stage\n\
         file_format = (type = 'JSON')"
    );
    for (statement, show) in [
        (format!("create database if not exists {DATABASE}"), None),
        (format!("use database {DATABASE}"), None),
        (format!("create or replace table {DATABASE}.public.quakes (q variant)"), None),
        (stage(&key.secret.0), Some(stage(shown))),
        (pipe, None),
    ] {
        let shown = show.as_ref().unwrap_or(&statement).replace('\n', "\n              ");
        say(&format!("  sql         {shown};"));
        sql.run(&statement).await?;
    }
    Ok(())
}

async fn produce(client: &Client, total: usize) -> Result<usize> {
    let lines: Vec<&str> = FEATURES.lines().collect();
    let mut put = 0;
    say("");
    for chunk in lines.chunks(BATCH) {
        let records: Vec<Value> = chunk.iter().map(|line| record(line)).collect::<Result<_>>()?;
        let body = json!({ "StreamName": STREAM, "Records": records });
        let reply = client.call("Kinesis_20131202.PutRecords", &body).await?;
        put += chunk.len() - reply["FailedRecordCount"].as_u64().unwrap_or_default() as usize;
        leg("producer -> stream", &format!("{} of {} records", thousands(put), thousands(total)));
    }
    Ok(put)
}

fn record(line: &str) -> Result<Value> {
    let feature: Value = serde_json::from_str(line)?;
    Ok(json!({ "Data": STANDARD.encode(line), "PartitionKey": text(&feature["id"]) }))
}

/// Shows the two legs that run by themselves until every row is there.
async fn follow(client: &Client, sql: &Sql, total: usize) -> Result<()> {
    let bucket = client.bucket(BUCKET)?;
    let (mut objects, mut rows) = (0, 0);
    until("every row", async || {
        let found: Vec<_> = bucket.list(None).try_collect().await?;
        let ours = || found.iter().filter(|o| o.location.as_ref().contains(DELIVERY));
        if ours().count() != objects {
            objects = ours().count();
            let kib = ours().map(|o| o.size).sum::<u64>() / 1024;
            leg("stream -> bucket", &format!("{objects} objects, {} KiB", thousands(kib as usize)));
        }
        let count = sql.rows("select count(*) from quakes").await?;
        let count: usize = count[1][0].parse()?;
        if count != rows {
            rows = count;
            leg("bucket -> table", &format!("{} of {} rows", thousands(rows), thousands(total)));
        }
        Ok(rows >= total)
    })
    .await
}

fn try_next(server: &Running) {
    let aws = &server.endpoints.aws;
    let (host, port) = server.endpoints.sql.rsplit_once(':').unwrap_or(("127.0.0.1", "5439"));
    let user = server.user();
    let (key, secret) = if server.open { ("test", "test") } else { ("…", "…") };
    say(&format!(
        "
Try next, in another terminal
    export AWS_ENDPOINT_URL={aws} AWS_ACCESS_KEY_ID={key} AWS_SECRET_ACCESS_KEY={secret} AWS_REGION=us-east-1
    aws kinesis describe-stream-summary --stream-name {STREAM}
    aws firehose describe-delivery-stream --delivery-stream-name {DELIVERY}
    aws s3 ls s3://{BUCKET} --recursive
    psql -h {host} -p {port} -U {user} {DATABASE} -c \"select system\\$pipe_status('quake_pipe')\"
    psql -h {host} -p {port} -U {user} {DATABASE} -c \"select q:properties.net::string net, count(*) from quakes group by 1 order by 2 desc\"
    curl {}/metrics",
        server.endpoints.admin
    ));
}

/// SQL over the PostgreSQL protocol, as psql speaks it.
struct Sql(tokio_postgres::Client);

impl Sql {
    async fn connect(server: &Running) -> Result<Self> {
        let (host, port) = server.endpoints.sql.rsplit_once(':').context("SQL address")?;
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(port.parse()?).dbname(DATABASE);
        match &server.own_user {
            Some(user) => config.user(&user.name).password(&user.secret.0),
            None => config.user(server.user()),
        };
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "the demo's SQL connection ended");
            }
        });
        Ok(Self(client))
    }

    async fn run(&self, statement: &str) -> Result<()> {
        self.0.simple_query(statement).await.with_context(|| statement.to_owned())?;
        Ok(())
    }

    /// The answer's column names, then its rows, as text.
    async fn rows(&self, query: &str) -> Result<Vec<Vec<String>>> {
        let mut rows = Vec::new();
        for part in self.0.simple_query(query).await.with_context(|| query.to_owned())? {
            match part {
                SimpleQueryMessage::RowDescription(columns) => {
                    rows.push(columns.iter().map(|c| c.name().to_owned()).collect());
                }
                SimpleQueryMessage::Row(row) => rows.push(
                    (0..row.len()).map(|n| row.get(n).unwrap_or("NULL").to_owned()).collect(),
                ),
                _ => {}
            }
        }
        ensure!(!rows.is_empty(), "no answer to {query}");
        Ok(rows)
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done().await? {
        if Instant::now() > deadline {
            bail!("waited {} s for {what}; the log says why", PATIENCE.as_secs());
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn table(rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |n: usize| rows.iter().map(|r| r[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        say(format!("    {}", cells.join("  ")).trim_end());
    }
}

fn step(kind: &str, name: &str, what: &str) {
    say(&format!("  {kind:<16}  {name:<20}  {what}"));
}

fn leg(name: &str, what: &str) {
    say(&format!("  {name:<20}  {what}"));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A reader that went away (`hydrant demo | head`) is no error.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_data_is_whole() {
        assert_eq!(FEATURES.lines().count(), 1707);
        assert!(FEATURES.lines().all(|line| record(line).is_ok()));
        assert_eq!(thousands(1707), "1,707");
    }
}
