//! Pipes: from a notification to a row, once, whatever crashes.

use hydrant_core::control::scan_all;

use crate::world::{LONGEST_PAUSE, World, gzip};

/// The user's two statements, as they are in the notes, with the values filled in.
const STAGE: &str = "create or replace stage twitter_stream.public.twitter_stage
url='s3://tweets/'
credentials = (AWS_KEY_ID='AKIDEXAMPLE' AWS_SECRET_KEY='wJalrXUtnFEMI');";
const PIPE: &str = "create or replace pipe twitter_stream.public.snowpipe auto_ingest=true as
copy into twitter_stream.public.tweets
from @twitter_stream.public.twitter_stage
file_format = (type = 'JSON');";

async fn world() -> World {
    let mut w = World::new().await;
    w.bucket("tweets");
    w.run("create database if not exists twitter_stream").await;
    w.run("create or replace table twitter_stream.public.tweets (tweet variant)").await;
    w.run(STAGE).await;
    w.run(PIPE).await;
    w
}

async fn status(w: &mut World) -> serde_json::Value {
    let text = w.value("select system$pipe_status('twitter_stream.public.snowpipe')").await;
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn the_users_statements_run_and_a_new_object_is_in_the_table() {
    let mut w = world().await;
    w.put_notified("tweets", "2026/11/23/12/a.gz", gzip("{\"id\":1,\"text\":\"hi\"}{\"id\":2}"))
        .await;
    w.put_notified("other", "x.gz", gzip("{\"id\":3}")).await;
    w.pump().await;
    assert_eq!(
        w.rows("select tweet:id::int, tweet:text::string from tweets order by 1").await,
        ["1|hi", "2|NULL"]
    );
    let status = status(&mut w).await;
    assert_eq!(status["executionState"], "RUNNING");
    assert_eq!(status["pendingFileCount"], 0);
    assert_eq!(status["lastIngestedFilePath"], "2026/11/23/12/a.gz");
    let shown = w.rows("show pipes like 'snow%' in schema twitter_stream.public").await;
    assert!(shown[0].contains("copy into twitter_stream.public.tweets\\nfrom @twitter_stream.public.twitter_stage\\nfile_format = (type = 'JSON')|"), "{shown:?}");
    assert!(shown[0].contains("arn:aws:sqs:us-east-1:"), "{shown:?}");
    for sql in ["show stages", "desc stage twitter_stage"] {
        let all = w.rows(sql).await.join("\n");
        assert!(all.contains("s3://tweets/") && !all.contains("wJalr"), "{all}");
    }
}

#[tokio::test]
async fn a_name_is_loaded_once_per_pipe() {
    let mut w = world().await;
    w.put_notified("tweets", "a.json", "{\"id\":1}").await;
    w.pump().await;
    w.put_notified("tweets", "a.json", "{\"id\":2}").await;
    w.pump().await;
    assert_eq!(w.rows("alter pipe snowpipe refresh").await, ["a.json|ALREADY_PRESENT"]);
    assert_eq!(w.value("select count(*) from tweets").await, "1");
    // A new pipe has no memory of names, but the table has one of contents.
    w.run(PIPE).await;
    w.run("alter pipe snowpipe refresh").await;
    w.pump().await;
    assert_eq!(w.rows("select tweet:id from tweets order by 1").await, ["1", "2"]);
}

#[tokio::test]
async fn a_paused_pipe_keeps_its_queue() {
    let mut w = world().await;
    w.run("alter pipe snowpipe set pipe_execution_paused = true").await;
    w.put_notified("tweets", "a.json", "{\"id\":1}").await;
    w.pump().await;
    let paused = status(&mut w).await;
    assert_eq!(
        (paused["executionState"].as_str(), paused["pendingFileCount"].as_u64()),
        (Some("PAUSED"), Some(1))
    );
    w.restart().await;
    w.run("alter pipe snowpipe set pipe_execution_paused = false").await;
    w.pump().await;
    assert_eq!(w.value("select count(*) from tweets").await, "1");
}

#[tokio::test]
async fn a_bad_file_is_skipped_and_said_so() {
    let mut w = world().await;
    w.put_notified("tweets", "a-bad.json", "{\"id\":1}\n{\"id\":").await;
    w.put_notified("tweets", "b.json", "{\"id\":2}").await;
    w.put_notified("tweets", "c.gz", "no gzip").await;
    w.pump().await;
    assert_eq!(w.value("select count(*) from tweets").await, "1");
    let status = status(&mut w).await;
    assert_eq!(status["pendingFileCount"], 0);
    assert!(status["error"].as_str().unwrap().contains("s3://tweets/c.gz: "), "{status}");
    let history = w
        .rows(
            "select file_name, status, pipe_name from table(information_schema.copy_history(\
             table_name=>'tweets', start_time=>'2026-01-01')) order by 1",
        )
        .await;
    assert_eq!(
        history,
        ["a-bad.json|Load failed|SNOWPIPE", "b.json|Loaded|SNOWPIPE", "c.gz|Load failed|SNOWPIPE"]
    );
}

#[tokio::test]
async fn what_a_pipe_lacks_is_in_its_status_and_it_goes_on_when_it_is_there() {
    let mut w = world().await;
    w.put_notified("tweets", "a.json", "{\"id\":1}").await;
    w.run("alter pipe snowpipe set pipe_execution_paused = true").await;
    w.pump().await;
    w.run("alter pipe snowpipe set pipe_execution_paused = false").await;
    w.run("drop table tweets").await;
    w.pump().await;
    assert_eq!(status(&mut w).await["executionState"], "STOPPED_MISSING_TABLE");
    w.run("create table tweets (tweet variant)").await;
    w.clock.advance(LONGEST_PAUSE);
    w.pump().await;
    assert_eq!(w.value("select count(*) from tweets").await, "1");
    w.run("drop stage twitter_stage").await;
    assert_eq!(status(&mut w).await["executionState"], "STOPPED_STAGE_DROPPED");
}

#[tokio::test]
async fn what_lands_while_the_stage_is_away_is_loaded_when_it_is_back() {
    let mut w = world().await;
    w.run("drop stage twitter_stage").await;
    w.put_notified("tweets", "meanwhile.json", "{\"id\":1}").await;
    w.pump().await;
    w.run(STAGE).await;
    w.put_notified("tweets", "after.json", "{\"id\":2}").await;
    w.clock.advance(LONGEST_PAUSE);
    w.pump().await;
    assert_eq!(w.rows("select tweet:id::int from tweets order by 1").await, ["1", "2"]);
}

#[tokio::test]
async fn a_crash_before_or_after_any_commit_loads_everything_once() {
    // Each try loses one commit more, with or without its effect, then restarts.
    for after in [false, true] {
        for nth in 0..6 {
            let mut w = world().await;
            for n in 0..5 {
                w.put_notified("tweets", &format!("{n}.json"), format!("{{\"id\":{n}}}")).await;
            }
            for _ in 0..nth {
                w.engine.run_pipes_once().await;
            }
            if after {
                w.control.lose_answers(2);
            } else {
                w.control.lose_commits(2);
            }
            w.engine.run_pipes_once().await;
            w.control.lose_answers(0);
            w.control.lose_commits(0);
            w.restart().await;
            w.put_notified("tweets", "0.json", "{\"id\":0}").await;
            w.pump().await;
            let rows = w.value("select count(*), count(distinct tweet:id::int) from tweets").await;
            assert_eq!(rows, "5|5", "after {nth} passes, effect {after}");
            w.restart().await;
            assert_eq!(w.value("select count(*) from tweets").await, "5");
            let named = w.value("select count(*) from tweets").await;
            assert_eq!(named, "5");
        }
    }
}

#[tokio::test]
async fn orphans_are_swept_at_the_next_start() {
    let mut w = world().await;
    w.put("tweets", "a.json", "{\"id\":1}").await;
    w.control.lose_commits(1_000);
    assert!(
        w.try_run("copy into tweets from @twitter_stage file_format=(type=json)").await.is_err()
    );
    w.control.lose_commits(0);
    assert!(w.files() > 0);
    w.restart().await;
    assert_eq!(w.files(), 0);
    w.run("copy into tweets from @twitter_stage file_format=(type=json)").await;
    w.restart().await;
    assert_eq!(w.value("select count(*) from tweets").await, "1");
}

#[tokio::test]
async fn a_pipe_refuses_what_a_pipe_cannot_have() {
    let mut w = world().await;
    for bad in ["files=('a')", "force=true", "on_error=abort_statement"] {
        let sql = format!(
            "create pipe p as copy into tweets from @twitter_stage file_format=(type=json) {bad}"
        );
        assert!(
            w.try_run(&sql).await.unwrap_err().message.contains("in the COPY of a pipe"),
            "{bad}"
        );
    }
    let e = w
        .try_run("create pipe p as copy into nope from @twitter_stage file_format=(type=json)")
        .await;
    assert!(e.unwrap_err().message.contains("Table 'TWITTER_STREAM.PUBLIC.NOPE' does not exist"));
    let e = w.try_run("create pipe p auto_ingest=true aws_sns_topic='x' as copy into tweets from @twitter_stage").await;
    assert!(e.unwrap_err().message.contains("AWS_SNS_TOPIC"));
}

#[tokio::test]
async fn the_key_of_a_stage_is_used_and_in_no_row() {
    let mut w = world().await;
    for _ in 0..2 {
        w.run("list @twitter_stream.public.twitter_stage").await;
        let reached = w.reached.lock().take().unwrap().credentials;
        assert_eq!(reached, Some(("AKIDEXAMPLE".to_owned(), "wJalrXUtnFEMI".to_owned())));
        w.restart().await;
    }
    let rows = scan_all(w.control.as_ref(), "").await.unwrap();
    let with = |text: &str| rows.iter().filter(|(_, entry)| entry.value.contains(text)).count();
    assert_eq!((with("AKIDEXAMPLE"), with("wJalrXUtnFEMI")), (1, 0));
}
