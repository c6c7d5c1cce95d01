//! What goes into the log below, and what comes out above.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use hydrant_core::Random;
use hydrant_core::encryption::{DataKeyId, WrappedKey};
use hydrant_core::log::{KeyError, LogEngine, LogError, ReadLimit, ShardUid};
use hydrant_core::names::Scope;
use hydrant_core::record::RecordBatch;
use hydrant_core::sequence::RecordIndex;
use hydrant_testkit::{ManualClock, MemoryLog, log_conformance};
use proptest::prelude::*;

use crate::{AWS_KINESIS, EncryptedLog, MasterKey, Vault};

const A: ShardUid = ShardUid(1);
const ALL: ReadLimit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };

fn scope() -> Scope {
    let account = "000000000000".parse().unwrap();
    Scope { account, region: "us-east-1".parse().unwrap() }
}

fn vault(master: u8, seed: u64, kms_keys: &[&str]) -> Arc<Vault> {
    let master = MasterKey::parse(&hex::encode([master; 32])).unwrap();
    let kms_keys = kms_keys.iter().map(|key| key.parse().unwrap()).collect();
    Arc::new(Vault::new(Some(master), kms_keys, Arc::new(Random::from_seed(seed))))
}

struct World {
    below: Arc<MemoryLog>,
    log: EncryptedLog,
    vault: Arc<Vault>,
    key: WrappedKey,
}

impl World {
    async fn new() -> Self {
        let below = Arc::new(MemoryLog::new(Arc::new(ManualClock::default())));
        let vault = vault(7, 1, &[]);
        let log = EncryptedLog::new(below.clone(), vault.clone());
        log.create(A, Duration::from_secs(86_400)).await.unwrap();
        let key = vault.draw(AWS_KINESIS, &scope(), "id").unwrap();
        Self { below, log, vault, key }
    }

    async fn put(&self, records: &[(&[u8], &[u8])], key: Option<DataKeyId>) {
        let mut batch = RecordBatch::new();
        records.iter().for_each(|(key, data)| batch.push(key, data));
        self.log.append(A, batch.encrypted_with(key)).await.unwrap();
    }
}

/// Key, data and whether the log holds it encrypted.
type Shown = (Vec<u8>, Vec<u8>, bool);

async fn read(log: &dyn LogEngine) -> Result<Vec<Shown>, LogError> {
    let page = log.read(A, RecordIndex::MIN, ALL).await?;
    let records = page.frames.iter().flat_map(|f| f.records());
    let shown = records.map(|r| (r.partition_key.to_vec(), r.data.to_vec(), r.is_encrypted()));
    Ok(shown.collect())
}

#[tokio::test]
async fn plain_batches_pass_every_promise_of_the_log() {
    log_conformance(async |clock| {
        let below = Arc::new(MemoryLog::new(clock));
        Arc::new(EncryptedLog::new(below, vault(7, 1, &[]))) as Arc<dyn LogEngine>
    })
    .await;
}

#[tokio::test]
async fn the_log_below_holds_no_plain_data_and_every_reader_sees_it() {
    let world = World::new().await;
    world.put(&[(b"a", b"before")], None).await;
    world.put(&[(b"a", b"attack at dawn"), (b"b", b"")], Some(world.key.id)).await;
    world.put(&[(b"a", b"after")], None).await;
    let below = read(&*world.below).await.unwrap();
    assert_eq!(below[1].0, b"a", "partition keys stay plain");
    assert!(below[1..3].iter().all(|r| r.2 && !r.1.windows(6).any(|w| w == b"attack")));
    assert_eq!(below[1].1.len(), b"attack at dawn".len() + 36);
    let shown = |key: &[u8], data: &[u8], encrypted| (key.to_vec(), data.to_vec(), encrypted);
    assert_eq!(
        read(&world.log).await.unwrap(),
        [
            shown(b"a", b"before", false),
            shown(b"a", b"attack at dawn", true),
            shown(b"b", b"", true),
            shown(b"a", b"after", false),
        ]
    );
    let page = world.log.read(A, RecordIndex::MIN, ALL).await.unwrap();
    assert!(page.frames.iter().flat_map(|f| f.records()).all(|r| !r.is_ciphertext()));
}

#[tokio::test]
async fn another_process_reads_it_with_the_master_key_alone() {
    let world = World::new().await;
    world.put(&[(b"a", b"kept")], Some(world.key.id)).await;
    for (other, readable) in [(vault(7, 2, &[]), true), (vault(8, 2, &[]), false)] {
        let loaded = other.load(&world.key, &scope(), "id");
        assert_eq!(loaded.is_ok(), readable, "{loaded:?}");
        let log = EncryptedLog::new(world.below.clone(), other);
        match read(&log).await {
            Ok(records) => assert!(readable && records[0].1 == b"kept"),
            Err(e) => assert!(!readable && matches!(e, LogError::Key(KeyError::Denied(_))), "{e}"),
        }
    }
    let none = Vault::new(None, Vec::new(), Arc::new(Random::from_seed(3)));
    let refusal = none.load(&world.key, &scope(), "id").unwrap_err();
    assert!(refusal.to_string().contains("HYDRANT_MASTER_KEY"), "{refusal}");
    let moved = vault(7, 2, &[]).load(&world.key, &scope(), "another stream's");
    assert!(matches!(moved, Err(KeyError::Denied(_))), "a key is bound to its stream: {moved:?}");
}

#[tokio::test]
async fn a_key_under_a_disabled_name_is_of_no_use_until_it_is_enabled() {
    let key = vault(7, 1, &["alias/orders"]).draw("alias/orders", &scope(), "id").unwrap();
    assert_eq!(key.kms_key, "alias/orders");
    let load = |name: &[&str]| vault(7, 2, name).load(&key, &scope(), "id");
    assert!(matches!(load(&["alias/orders=disabled"]), Err(KeyError::Disabled(_))));
    assert!(matches!(load(&["alias/orders=pending-deletion"]), Err(KeyError::InvalidState(_))));
    assert!(matches!(load(&[]), Err(KeyError::NotFound(_))));
    assert_eq!(load(&["alias/orders"]), Ok(()));
    let own = vault(7, 1, &["alias/aws/kinesis=disabled"]).draw(AWS_KINESIS, &scope(), "id");
    assert!(matches!(own, Err(KeyError::Disabled(_))), "{own:?}");
}

#[tokio::test]
async fn a_page_stops_before_what_cannot_be_read() {
    let world = World::new().await;
    let lost = world.vault.draw(AWS_KINESIS, &scope(), "id").unwrap();
    world.put(&[(b"a", b"plain")], None).await;
    world.put(&[(b"a", b"kept")], Some(world.key.id)).await;
    world.put(&[(b"a", b"lost")], Some(lost.id)).await;
    world.put(&[(b"a", b"behind")], None).await;
    world.vault.forget(lost.id);
    let page = world.log.read(A, RecordIndex::MIN, ALL).await.unwrap();
    assert_eq!(page.len(), 2);
    let next = world.log.read(A, page.next, ALL).await;
    assert!(matches!(next, Err(LogError::Key(KeyError::NotFound(_)))), "{next:?}");
    let late = RecordBatch::new().encrypted_with(Some(lost.id));
    assert!(matches!(world.log.append(A, late).await, Err(LogError::Key(_))));
}

#[tokio::test]
async fn a_record_cannot_pass_for_another() {
    let world = World::new().await;
    world.put(&[(b"a", b"for a")], Some(world.key.id)).await;
    let page = world.below.read(A, RecordIndex::MIN, ALL).await.unwrap();
    let data = page.frames[0].get(0).data.to_vec();
    let forged = async |key: &[u8], data: &[u8], shard: u64| {
        let log = Arc::new(MemoryLog::new(Arc::new(ManualClock::default())));
        let shard = ShardUid(shard);
        log.create(shard, Duration::from_secs(86_400)).await.unwrap();
        let mut batch = RecordBatch::new();
        let flag = hydrant_core::record::ENCRYPTED;
        let pushed = batch.try_push_with(flag, key, data.len(), |room| {
            room.extend_from_slice(data);
            Ok::<_, std::convert::Infallible>(())
        });
        pushed.unwrap();
        log.append(shard, batch).await.unwrap();
        let log = EncryptedLog::new(log, world.vault.clone());
        log.read(shard, RecordIndex::MIN, ALL).await.map(|page| page.len())
    };
    assert_eq!(forged(b"a", &data, 1).await, Ok(1));
    let mut changed = data.clone();
    changed[25] ^= 1;
    for refused in [
        forged(b"b", &data, 1).await,
        forged(b"a", &data, 2).await,
        forged(b"a", &changed, 1).await,
        forged(b"a", &data[..30], 1).await,
        forged(b"a", &[], 1).await,
    ] {
        assert!(matches!(refused, Err(LogError::Corrupt(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn no_nonce_is_used_twice() {
    let world = World::new().await;
    for _ in 0..50 {
        world.put(&[(&b"a"[..], &b"x"[..]); 40], Some(world.key.id)).await;
    }
    let page = world.below.read(A, RecordIndex::MIN, ALL).await.unwrap();
    let records = page.frames.iter().flat_map(|f| f.records());
    let nonces: std::collections::HashSet<Vec<u8>> =
        records.map(|r| r.data[8..20].to_vec()).collect();
    assert_eq!(nonces.len(), 2_000);
}

#[test]
fn nothing_that_is_shown_holds_a_key() {
    let vault = vault(0xab, 1, &[]);
    let key = vault.draw(AWS_KINESIS, &scope(), "id").unwrap();
    let wrapped = base64::engine::general_purpose::STANDARD.decode(&key.wrapped).unwrap();
    assert_eq!(wrapped.len(), 12 + 32 + 16);
    let shown = format!("{vault:?} {key:?}");
    assert!(!shown.contains("abab") && !shown.contains("171, 171"), "{shown}");
}

proptest! {
    #[test]
    fn any_batch_reads_back(
        records in prop::collection::vec(
            (".{0,20}", prop::collection::vec(any::<u8>(), 0..300)), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let pairs: Vec<(&[u8], &[u8])> =
                records.iter().map(|(key, data)| (key.as_bytes(), &data[..])).collect();
            world.put(&pairs, Some(world.key.id)).await;
            let read = read(&world.log).await.unwrap();
            let read: Vec<_> = read.iter().map(|(key, data, _)| (&key[..], &data[..])).collect();
            assert_eq!(read, pairs);
        });
    }
}
