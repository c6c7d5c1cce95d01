//! The engine keeps what the port of warehouses promises.

use std::sync::Arc;

use hydrant_core::warehouse::{StagedFile, TableName};
use hydrant_testkit::{Depot, warehouse_conformance};
use hydrant_warehouse::EngineSessions;
use hydrant_warehouse::session::{Names, Sessions};
use object_store::ObjectStoreExt;
use parking_lot::Mutex;

use crate::world::{World, lines};

async fn depot() -> Depot {
    let mut world = World::new().await;
    world.run("create database d").await;
    world.run("create table d.public.t (v variant)").await;
    let (engine, bucket) = (Arc::clone(&world.engine), world.bucket("lake"));
    // Its directory has to outlive the copies.
    let world = Arc::new(Mutex::new(world));
    Depot {
        warehouse: engine.clone(),
        table: TableName {
            database: "D".to_owned(),
            schema: "PUBLIC".to_owned(),
            table: "T".to_owned(),
        },
        stage: Box::new(move |name, bytes| {
            let (bucket, name, bytes) = (Arc::clone(&bucket), name.to_owned(), bytes.to_vec());
            let world = Arc::clone(&world);
            Box::pin(async move {
                let size_bytes = bytes.len() as u64;
                let path = object_store::path::Path::from(name.as_str());
                let put = bucket.put(&path, bytes.into()).await.unwrap();
                drop(world);
                let etag = put.e_tag.unwrap_or_default();
                StagedFile { url: format!("s3://lake/{name}"), size_bytes, etag }
            })
        }),
        rows: Box::new(move || {
            let engine = Arc::clone(&engine);
            Box::pin(async move {
                let mut session = EngineSessions(engine).open("tester", Names::default());
                let answer = session.execute("select v from d.public.t", &[]).await.unwrap();
                // A VARIANT is shown over several lines, which `lines` shows as one.
                lines(&answer).iter().map(|line| line.replace("\\n", "\n")).collect()
            })
        }),
    }
}

#[tokio::test]
async fn the_engine_is_a_warehouse() {
    warehouse_conformance(depot).await;
}
