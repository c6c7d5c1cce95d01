//! The delay from a put to each consumer, at a steady rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::try_join;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::client::{BenchError, Place, pause, timely};
use crate::get::shards;
use crate::load::Load;
use crate::measure::{Report, Tally, Watch};
use crate::put::{all, put};
use crate::settings::{FanOut, Target};
use crate::subscription::{Shared, Subscription};

/// How long what was acknowledged last may take to be delivered.
const LAST: Duration = Duration::from_secs(10);
/// Longest time between two puts of a connection.
const STEP_MAX: Duration = Duration::from_secs(3_600);

pub(crate) async fn run(place: &Place, fan_out: &FanOut) -> Result<Report, BenchError> {
    let target = fan_out.target();
    let consumers = register(place, fan_out).await?;
    let shards = shards(place, &target.stream).await?;
    let shared = Arc::new(Shared {
        place: place.clone(),
        watch: Watch::start(place.pid),
        delivered: AtomicU64::new(0),
        standing: AtomicU64::new(0),
    });
    let (stop, told) = watch::channel(false);
    let mut subscriptions = Vec::new();
    for consumer in &consumers {
        // A connection each, as each consumer is a process of its own.
        let sender = place.connect_http2().await?;
        for shard in &shards {
            let subscription = Subscription::new(sender.clone(), consumer.clone(), shard.clone());
            let (shared, told) = (shared.clone(), told.clone());
            let reading = async move { subscription.run(&shared, told).await };
            subscriptions.push(reading);
        }
    }
    let every = subscriptions.len() as u64;
    let writing = async {
        let outcome = load_and_wait(&shared, &target, fan_out, every).await;
        stop.send_replace(true);
        outcome
    };
    let (written, mut delivered) = try_join(writing, all(subscriptions)).await?;
    delivered.requests = written.tally.requests;
    delivered.refused = written.tally.refused;
    let expected = written.tally.records * consumers.len() as u64;
    let mut report = written.watch.report("fan-out", &delivered);
    report.missing = expected.saturating_sub(delivered.records);
    Ok(report)
}

struct Written {
    tally: Tally,
    watch: Watch,
}

/// Puts at the rate, once every subscription stands, and waits until all of it is delivered.
async fn load_and_wait(
    shared: &Arc<Shared>,
    target: &Target,
    fan_out: &FanOut,
    every: u64,
) -> Result<Written, BenchError> {
    timely("not every subscription was answered", async {
        while shared.standing.load(Ordering::SeqCst) < every {
            pause().await;
        }
        Ok(())
    })
    .await?;
    let watch = Watch::start(shared.place.pid);
    let step = Duration::from_secs_f64(
        f64::from(target.batch()) * f64::from(target.connections) / fan_out.rate as f64,
    );
    let end = Instant::now() + Duration::from_secs(target.seconds);
    let writers = (0..target.connections).map(|number| {
        let (shared, target) = (shared.clone(), target.clone());
        let step = step.min(STEP_MAX);
        async move { writes(&shared, &target, number, step, end).await }
    });
    let tally = all(writers).await?;
    let expected = tally.records * u64::from(fan_out.consumers);
    let all = async {
        while shared.delivered.load(Ordering::SeqCst) < expected {
            pause().await;
        }
    };
    // What is missing then is told in the report.
    let _ = timeout(LAST, all).await;
    Ok(Written { tally, watch })
}

/// Puts a batch a step, each with the moment it is put.
async fn writes(
    shared: &Shared,
    target: &Target,
    number: u16,
    step: Duration,
    end: Instant,
) -> Result<Tally, BenchError> {
    let mut connection = shared.place.connect().await?;
    let load = Load::new(target, number);
    let mut tally = Tally::new();
    sleep(step.mul_f64(f64::from(number) / f64::from(target.connections))).await;
    let mut ticks = interval(step.max(Duration::from_micros(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while Instant::now() < end {
        let body = load.body(shared.watch.micros(), usize::from(target.batch()));
        let batch = u64::from(target.batch());
        tally.put(batch, put(&mut connection, load.operation(), body, batch).await?);
        ticks.tick().await;
    }
    Ok(tally)
}

/// Registers the consumers and waits until all are ACTIVE; gives their ARNs.
async fn register(place: &Place, fan_out: &FanOut) -> Result<Vec<String>, BenchError> {
    let mut connection = place.connect().await?;
    let body = json!({"StreamName": fan_out.target.stream});
    let answer = connection.call("DescribeStreamSummary", &body).await?;
    let stream = answer["StreamDescriptionSummary"]["StreamARN"].clone();
    let mut arns = Vec::new();
    for number in 0..fan_out.consumers {
        let body = json!({"StreamARN": stream, "ConsumerName": format!("bench-{number}")});
        let registered = timely("the consumers are not registered", async {
            loop {
                // A few at a time may be CREATING.
                match connection.call("RegisterStreamConsumer", &body).await {
                    Err(error) if error.is("LimitExceededException") => pause().await,
                    answer => return answer,
                }
            }
        });
        let answer = registered.await?;
        let arn = answer["Consumer"]["ConsumerARN"].as_str().unwrap_or_default();
        arns.push(arn.to_owned());
    }
    timely("the consumers are not ACTIVE", async {
        for arn in &arns {
            let body = json!({"ConsumerARN": arn});
            loop {
                let answer = connection.call("DescribeStreamConsumer", &body).await?;
                if answer["ConsumerDescription"]["ConsumerStatus"] == "ACTIVE" {
                    break;
                }
                pause().await;
            }
        }
        Ok(())
    })
    .await?;
    Ok(arns)
}
