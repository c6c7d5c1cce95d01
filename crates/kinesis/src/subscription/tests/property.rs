//! Whatever happens meanwhile, a subscription that is renewed delivers what GetRecords shows.

use proptest::prelude::*;

use super::*;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// So many records are put at once.
    Put(usize),
    /// The client reads what is there, at most so many events.
    Read(usize),
    /// The shard at the lowest hash key is split.
    Split,
    /// The client subscribes again behind what it has, while its subscription goes on or not.
    Renew { drop_first: bool },
    /// Time passes.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..8).prop_map(Step::Put),
        4 => (1usize..5).prop_map(Step::Read),
        1 => Just(Step::Split),
        2 => any::<bool>().prop_map(|drop_first| Step::Renew { drop_first }),
        1 => (1u64..400).prop_map(Step::Pass),
    ]
}

struct Reader<'a> {
    world: &'a World,
    arn: &'a str,
    client: Option<Client>,
    shard: String,
    position: Value,
    seen: Vec<String>,
}

impl Reader<'_> {
    async fn renew(&mut self, drop_first: bool) {
        if drop_first {
            self.client = None;
        }
        tokio::time::advance(Duration::from_secs(5)).await;
        let mut old = self.client.take();
        let position = self.position.clone();
        self.client = Some(self.world.subscribe(self.arn, &self.shard, position).await);
        // The old one ends, one way or the other, without an event more than it had.
        if let Some(old) = &mut old {
            while let Some(seen) = old.next().await {
                assert!(!matches!(seen, Seen::First), "{seen:?}");
            }
        }
    }

    /// One event, if it is there; whether it was.
    async fn read(&mut self) -> bool {
        let Some(client) = &mut self.client else { return false };
        let Ok(seen) = timeout(Duration::from_millis(1), client.next()).await else { return false };
        let Some(seen) = seen else {
            // Its life is over.
            self.renew(true).await;
            return true;
        };
        let event = seen.event();
        self.seen.extend(seen.data());
        match event.get("ChildShards") {
            None => {
                let number = event["ContinuationSequenceNumber"].clone();
                self.position =
                    json!({ "Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": number });
            }
            Some(children) => {
                assert!(event.get("ContinuationSequenceNumber").is_none());
                self.shard = children[0]["ShardId"].as_str().unwrap().to_owned();
                self.position = horizon();
                self.client = None;
                self.client = Some(self.world.subscribe(self.arn, &self.shard, horizon()).await);
            }
        }
        true
    }
}

async fn run(steps: Vec<Step>) {
    let world = World::new().await;
    let arns = world.with_consumers(&["c"]).await;
    let mut reader = Reader {
        world: &world,
        arn: &arns[0],
        client: None,
        shard: FIRST.to_owned(),
        position: horizon(),
        seen: Vec::new(),
    };
    reader.client = Some(world.subscribe(&arns[0], FIRST, horizon()).await);
    let (mut lowest, mut put) = (FIRST.to_owned(), 0);
    for step in steps {
        match step {
            Step::Put(count) => {
                for _ in 0..count {
                    use base64::Engine as _;
                    let data = base64::engine::general_purpose::STANDARD.encode(put.to_string());
                    let body = json!({ "StreamName": "s", "PartitionKey": "k", "Data": data,
                                       "ExplicitHashKey": "0" });
                    world.ok("PutRecord", body).await;
                    put += 1;
                }
            }
            Step::Read(events) => {
                for _ in 0..events {
                    reader.read().await;
                }
            }
            Step::Split => {
                let children = world.split(&lowest).await;
                lowest.clone_from(&children[0]);
            }
            Step::Renew { drop_first } => reader.renew(drop_first).await,
            Step::Pass(seconds) => {
                world.clock.advance(Duration::from_secs(seconds));
                tokio::time::advance(Duration::from_secs(seconds)).await;
            }
        }
    }
    for _ in 0..2 {
        while reader.read().await {}
    }
    let (mut want, mut shard) = (Vec::new(), FIRST.to_owned());
    loop {
        let iterator = world.horizon("s", &shard).await;
        let page = world.ok("GetRecords", json!({ "ShardIterator": iterator })).await;
        want.extend(page["Records"].as_array().unwrap().iter().map(|r| data_of(&r["Data"])));
        let Some(children) = page.get("ChildShards") else { break };
        shard = children[0]["ShardId"].as_str().unwrap().to_owned();
    }
    assert_eq!(want.len(), put);
    assert_eq!(reader.seen, want);
    drop(reader);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.remembered(), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_renewed_subscription_equals_get_records(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(steps));
    }
}
