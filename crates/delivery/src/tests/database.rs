//! Delivery streams that read a database: what they make, what they refuse, and what a crash leaves.

use hydrant_core::capture::{
    Capture, CaptureError, CapturedTable, Connection, Envelope, Failure, IfExists, PgTable, Secret,
    SecretText, SnapshotMode, SourceState, SslMode, TableState,
};
use hydrant_testkit::FaultyControl;

use super::*;

const SECRET_ARN: &str = "arn:aws:secretsmanager:us-east-1:000000000000:secret:pg-AbC123";
const SERVICE: &str = "com.amazonaws.vpce.us-east-1.vpce-svc-0123456789abcdef0";

/// `DatabaseSourceConfiguration` as a user gives it.
fn configuration() -> Value {
    json!({
        "Type": "PostgreSQL",
        "Endpoint": "db.example.com",
        "Port": 5432,
        "SSLMode": "Disabled",
        "Databases": { "Include": ["shop"] },
        "Tables": { "Include": ["public.orders", "public\\.items", "public.orders"] },
        "SnapshotWatermarkTable": "public.watermarks",
        "DatabaseSourceAuthenticationConfiguration": {
            "SecretsManagerConfiguration":
                { "SecretARN": SECRET_ARN, "RoleARN": ROLE, "Enabled": true },
        },
        "DatabaseSourceVPCConfiguration": { "VpcEndpointServiceName": SERVICE },
    })
}

fn of_type(configuration: &Value) -> Value {
    json!({
        "DeliveryStreamType": "DatabaseAsSource",
        "DatabaseSourceConfiguration": configuration,
    })
}

fn request(name: &str, configuration: &Value) -> Value {
    let mut input = of_type(configuration);
    input["DeliveryStreamName"] = json!(name);
    input["S3DestinationConfiguration"] =
        json!({ "RoleARN": ROLE, "BucketARN": "arn:aws:s3:::lake" });
    input
}

fn secret(name: &str, user: Option<&str>) -> Secret {
    Secret {
        name: name.to_owned(),
        user: user.map(str::to_owned),
        password: SecretText::new("sesame"),
        created: Timestamp::from_millis(0),
        comment: String::new(),
    }
}

fn foreign_connection(name: &str) -> Connection {
    Connection {
        name: name.to_owned(),
        host: "elsewhere".to_owned(),
        port: 5432,
        database: "d".to_owned(),
        user: Some("u".to_owned()),
        secret: None,
        ssl_mode: SslMode::Disable,
        ssl_authority: None,
        created: Timestamp::from_millis(0),
        comment: "mine".to_owned(),
    }
}

fn captured(table: &str, oid: u32, state: TableState, reason: Option<&str>) -> CapturedTable {
    CapturedTable {
        table: PgTable { schema: "public".to_owned(), table: table.to_owned() },
        oid,
        identity: 'd',
        columns: Vec::new(),
        seen: false,
        dropped: Vec::new(),
        filenode: 0,
        version: 1,
        state,
        reason: reason.map(str::to_owned),
        snapshot_rows: 0,
        snapshot_rows_estimated: None,
    }
}

/// A world with the secret `PG`.
async fn world() -> World {
    with_secret(World::new().await).await
}

async fn with_secret(world: World) -> World {
    world.capture.create_secret(secret("PG", Some("reader")), IfExists::Fail).await.unwrap();
    world
}

/// The changes asked of capture, without the secret's.
fn calls(world: &World) -> Vec<String> {
    world.capture.calls().into_iter().filter(|call| !call.contains("_secret ")).collect()
}

async fn described(delivery: &Delivery, name: &str) -> Value {
    let input = json!({ "DeliveryStreamName": name });
    let mut reply = delivery.api("DescribeDeliveryStream", input).await.unwrap();
    reply["DeliveryStreamDescription"].take()
}

async fn status(delivery: &Delivery, name: &str) -> String {
    described(delivery, name).await["DeliveryStreamStatus"].as_str().unwrap().to_owned()
}

async fn rows(world: &World) -> usize {
    let rows = hydrant_core::control::scan_all(world.control.as_ref(), "delivery/").await;
    rows.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn a_database_is_captured_into_a_stream_of_its_own_and_delivered() {
    let world = world().await;
    let delivery = world.start().await;
    delivery.create("orders", 1, 5, of_type(&configuration())).await;
    assert_eq!(status(&delivery, "orders").await, "ACTIVE");
    assert_eq!(calls(&world), ["create_connection orders", "create_source orders"]);

    let connection = world.capture.connections().await.unwrap().remove(0);
    let reached = (connection.host.as_str(), connection.port, connection.database.as_str());
    assert_eq!(reached, ("db.example.com", 5432, "shop"));
    assert_eq!((connection.user, connection.secret.as_deref()), (None, Some("PG")));
    assert_eq!(connection.ssl_mode, SslMode::Disable);
    let source = world.capture.sources().await.unwrap().remove(0).settings;
    assert_eq!((source.connection.as_str(), source.stream.as_str()), ("orders", "orders"));
    assert_eq!(source.scope, world.scope);
    assert_eq!((source.publications, source.slot), (vec!["orders".to_owned()], None));
    assert_eq!((source.envelope, source.snapshot), (Envelope::Debezium, SnapshotMode::Initial));
    let tables = source.tables.unwrap().into_iter().map(|t| t.table.to_string());
    assert_eq!(tables.collect::<Vec<_>>(), ["public.items", "public.orders"]);

    // The stream is made by the source, some time after; what is in it already is delivered too.
    let stream = world.stream("orders", 1).await;
    world.append(stream.shards[0].uid, "snapshot ").await;
    world.append(stream.shards[0].uid, "change ").await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.bodies(), ["snapshot change "]);
    drop(delivery);
    let delivery = world.start().await;
    world.append(stream.shards[0].uid, "later ").await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.bodies().concat(), "snapshot change later ");
    assert_eq!(calls(&world).len(), 2, "a start makes nothing again");

    let put = delivery.put("orders", "x").await.unwrap_err();
    assert_eq!(put.code, "InvalidArgumentException");
    let kind = json!({ "DeliveryStreamType": "DatabaseAsSource" });
    let listed = delivery.api("ListDeliveryStreams", kind).await.unwrap();
    assert_eq!(listed["DeliveryStreamNames"], json!(["orders"]));
    delivery.api("DeleteDeliveryStream", json!({ "DeliveryStreamName": "orders" })).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(calls(&world)[2..], ["drop_source orders", "drop_connection orders"]);
    assert_eq!(rows(&world).await, 0);
    assert!(world.streams.get(&world.scope, &stream.name).is_some(), "the stream stays");
}

#[tokio::test(start_paused = true)]
async fn describe_shows_the_source_and_its_snapshots() {
    let world = world().await;
    let delivery = world.start().await;
    let mut given = configuration();
    given["SSLMode"] = Value::Null;
    given["Tables"] = json!({});
    delivery.create("orders", 5, 300, of_type(&given)).await;
    let mut expected = configuration();
    expected["SSLMode"] = json!("Enabled");
    expected["Tables"] = json!({});
    let shown = described(&delivery, "orders").await;
    assert_eq!(shown["DeliveryStreamType"], "DatabaseAsSource");
    assert_eq!(shown["Source"], json!({ "DatabaseSourceDescription": expected }));
    assert!(shown.get("FailureDescription").is_none());
    let connection = world.capture.connections().await.unwrap().remove(0);
    assert_eq!(connection.ssl_mode, SslMode::VerifyFull);
    assert_eq!(world.capture.sources().await.unwrap()[0].settings.tables, None);

    let tables = vec![
        captured("a", 11, TableState::Live, None),
        captured("b", 12, TableState::Snapshotting, None),
        captured("c", 13, TableState::Errored, Some("too large\nby far")),
    ];
    world.capture.show("orders", SourceState::Snapshotting, "", tables.clone());
    let info = |n: u32, table: &str, status: &str| {
        json!({
            "Id": format!("1-{n}"),
            "Table": table,
            "RequestTimestamp": 1_700_000_000.0,
            "RequestedBy": "FIREHOSE",
            "Status": status,
        })
    };
    let mut errored = info(13, "public.c", "SUSPENDED");
    errored["FailureDescription"] =
        json!({ "Type": "UNKNOWN_ERROR", "Details": "too large by far" });
    let shown = described(&delivery, "orders").await;
    assert_eq!(
        shown["Source"]["DatabaseSourceDescription"]["SnapshotInfo"],
        json!([info(11, "public.a", "COMPLETE"), info(12, "public.b", "IN_PROGRESS"), errored])
    );
    let failed = SourceState::Failed(Failure::SlotLost);
    world.capture.show("orders", failed, &"long ".repeat(1_000), tables);
    let shown = described(&delivery, "orders").await;
    assert_eq!(shown["DeliveryStreamStatus"], "ACTIVE");
    let details = shown["FailureDescription"]["Details"].as_str().unwrap();
    assert_eq!((details.len(), &details[..5]), (1024, "long "));
    let snapshots = &shown["Source"]["DatabaseSourceDescription"]["SnapshotInfo"];
    assert_eq!(snapshots[1]["Status"], "SUSPENDED");
}

/// What goes wrong once.
#[derive(Clone, Copy, Debug)]
enum Fault {
    LoseCalls(u32),
    LoseAnswers(u32),
    LoseCommits,
    LoseCommitAnswers,
    /// The process ends after this many milliseconds.
    Die(u64),
}

const FAULTS: &[Fault] = &[
    Fault::LoseCalls(1),
    Fault::LoseCalls(2),
    Fault::LoseCalls(3),
    Fault::LoseAnswers(1),
    Fault::LoseAnswers(2),
    Fault::LoseCommits,
    Fault::LoseCommitAnswers,
    Fault::Die(0),
    Fault::Die(1),
    Fault::Die(1_500),
];

/// Does it to a process, and gives the one that runs afterwards: the same, or a new one.
async fn befall(
    fault: Fault,
    world: &World,
    control: &FaultyControl,
    delivery: Arc<Delivery>,
    restart: bool,
) -> Arc<Delivery> {
    match fault {
        Fault::LoseCalls(count) => world.capture.lose_calls(count),
        Fault::LoseAnswers(count) => world.capture.lose_answers(count),
        Fault::LoseCommits => control.lose_commits(1),
        Fault::LoseCommitAnswers => control.lose_answers(1),
        Fault::Die(ms) => {
            world.capture.lose_answers(1);
            sleep(Duration::from_millis(ms)).await;
        }
    }
    if !restart && !matches!(fault, Fault::Die(_)) {
        return delivery;
    }
    tokio::task::yield_now().await;
    drop(delivery);
    world.start().await
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_there_is_one_source_and_in_the_end_none() {
    for (fault, restart) in FAULTS.iter().flat_map(|f| [(*f, false), (*f, true)]) {
        let control = Arc::new(FaultyControl::new(Arc::new(MemoryControl::new())));
        let world = with_secret(World::over(control.clone()).await).await;
        let delivery = world.start().await;
        let input = request("orders", &configuration());
        delivery.api("CreateDeliveryStream", input).await.unwrap();
        let delivery = befall(fault, &world, &control, delivery, restart).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(status(&delivery, "orders").await, "ACTIVE", "{fault:?}");
        let sources = world.capture.sources().await.unwrap();
        let connections = world.capture.connections().await.unwrap();
        assert_eq!((sources.len(), connections.len()), (1, 1), "{fault:?}");

        let name = json!({ "DeliveryStreamName": "orders" });
        delivery.api("DeleteDeliveryStream", name).await.unwrap();
        let _delivery = befall(fault, &world, &control, delivery, restart).await;
        sleep(Duration::from_secs(60)).await;
        let sources = world.capture.sources().await.unwrap();
        let connections = world.capture.connections().await.unwrap();
        assert_eq!((sources.len(), connections.len()), (0, 0), "{fault:?}");
        assert_eq!(rows(&world).await, 0, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_made_is_neither_taken_nor_dropped() {
    let world = world().await;
    let delivery = world.start().await;
    let foreign = foreign_connection("orders");
    world.capture.create_connection(foreign.clone(), IfExists::Fail).await.unwrap();
    world.stream("clicks", 1).await;
    for (name, kind) in [("orders", "Connection"), ("clicks", "Stream")] {
        let input = request(name, &configuration());
        let error = delivery.api("CreateDeliveryStream", input).await.unwrap_err();
        assert_eq!(error.code, "ResourceInUseException", "{error}");
        assert!(error.message.starts_with(&format!("{kind} '{name}' already exists")), "{error}");
    }
    assert_eq!(rows(&world).await, 0);

    // Made by somebody else after the check, and before the delivery stream came to it.
    world.capture.drop_connection("orders").await.unwrap();
    world.capture.lose_calls(1);
    delivery.api("CreateDeliveryStream", request("orders", &configuration())).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(status(&delivery, "orders").await, "CREATING");
    world.capture.create_connection(foreign.clone(), IfExists::Fail).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let shown = described(&delivery, "orders").await;
    assert_eq!(shown["DeliveryStreamStatus"], "CREATING_FAILED");
    let failed = shown["FailureDescription"]["Details"].as_str().unwrap();
    assert!(failed.contains("Connection 'orders' already exists"), "{failed}");
    let tag = json!({ "DeliveryStreamName": "orders", "Tags": [{ "Key": "a" }] });
    let tag = delivery.api("TagDeliveryStream", tag).await.unwrap_err();
    assert_eq!(tag.code, "ResourceInUseException");
    delivery.api("DeleteDeliveryStream", json!({ "DeliveryStreamName": "orders" })).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.capture.connections().await.unwrap(), [foreign]);
    assert_eq!(rows(&world).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_others_use_or_replaced_stays() {
    let world = world().await;
    let delivery = world.start().await;
    delivery.create("orders", 5, 60, of_type(&configuration())).await;
    let mut other = world.capture.sources().await.unwrap().remove(0).settings;
    other.name = "other".to_owned();
    world.capture.create_source(other, IfExists::Fail).await.unwrap();
    delivery.api("DeleteDeliveryStream", json!({ "DeliveryStreamName": "orders" })).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(rows(&world).await, 0);
    let sources = world.capture.sources().await.unwrap();
    assert_eq!(sources.iter().map(|s| s.settings.name.as_str()).collect::<Vec<_>>(), ["other"]);
    assert_eq!(world.capture.connections().await.unwrap().len(), 1);

    delivery.create("clicks", 5, 60, of_type(&configuration())).await;
    let replaced = foreign_connection("clicks");
    world.capture.create_connection(replaced.clone(), IfExists::Replace).await.unwrap();
    delivery.api("DeleteDeliveryStream", json!({ "DeliveryStreamName": "clicks" })).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(rows(&world).await, 0);
    assert_eq!(world.capture.sources().await.unwrap().len(), 1);
    assert!(world.capture.connections().await.unwrap().contains(&replaced));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_be_made_fails_the_creation_for_good() {
    let world = world().await;
    let delivery = world.start().await;
    world.capture.refuse_source(CaptureError::Invalid("there are 256 sources".to_owned()));
    delivery.api("CreateDeliveryStream", request("orders", &configuration())).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(status(&delivery, "orders").await, "CREATING_FAILED");
    drop(delivery);
    let delivery = world.start().await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(status(&delivery, "orders").await, "CREATING_FAILED");
    assert_eq!(calls(&world).len(), 2, "it is not tried again");
    delivery.api("DeleteDeliveryStream", json!({ "DeliveryStreamName": "orders" })).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(world.capture.connections().await.unwrap().is_empty());
    assert_eq!(rows(&world).await, 0);
    delivery.create("orders", 5, 60, of_type(&configuration())).await;
    assert_eq!(status(&delivery, "orders").await, "ACTIVE");
}

#[tokio::test(start_paused = true)]
async fn a_process_without_capture_refuses_and_leaves_what_there_is() {
    let world = world().await;
    world.capture.lose_calls(u32::MAX);
    let delivery = world.start().await;
    delivery.api("CreateDeliveryStream", request("orders", &configuration())).await.unwrap();
    drop(delivery);
    let without = || Ports { capture: None, ..world.ports() };
    let delivery = Delivery::start(without(), Options::default()).await.unwrap();
    sleep(Duration::from_secs(120)).await;
    assert_eq!(status(&delivery, "orders").await, "CREATING");
    let input = request("more", &configuration());
    let error = delivery.api("CreateDeliveryStream", input).await.unwrap_err();
    assert_eq!(error.code, "InvalidArgumentException");
    assert!(error.message.contains("DatabaseAsSource"), "{error}");
    delivery.shutdown().await;
    drop(delivery);
    world.capture.lose_calls(0);
    let delivery = world.start().await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(status(&delivery, "orders").await, "ACTIVE");
}

#[tokio::test(start_paused = true)]
async fn what_a_source_cannot_do_is_refused_by_name() {
    let world = world().await;
    world.capture.create_secret(secret("NOBODY", None), IfExists::Fail).await.unwrap();
    let delivery = world.start().await;
    let secrets = |value: Value| json!({ "SecretsManagerConfiguration": value });
    let secret = |name: &str, region: &str| {
        let arn = format!("arn:aws:secretsmanager:{region}:000000000000:secret:{name}");
        secrets(json!({ "Enabled": true, "SecretARN": arn }))
    };
    let authentication = "DatabaseSourceAuthenticationConfiguration";
    let long = "x".repeat(64);
    let cases = [
        ("Type", json!("MySQL"), "hydrant does not support Type (MySQL)"),
        ("Port", json!(0), "Port must be 1 to 65535"),
        ("Endpoint", json!("db example"), "Endpoint must be"),
        ("Databases", json!({}), "Databases.Include"),
        ("Databases", json!({ "Include": ["a", "b"] }), "Databases.Include"),
        ("Databases", json!({ "Include": ["sh.*"] }), "Databases.Include (the pattern 'sh.*')"),
        ("Databases", json!({ "Include": [long] }), "Databases.Include"),
        ("Databases", json!({ "Include": ["a"], "Exclude": ["b"] }), "Databases.Exclude"),
        ("Tables", json!({ "Include": ["orders"] }), "written as schema.table"),
        ("Tables", json!({ "Include": ["shop.public.orders"] }), "written as schema.table"),
        ("Tables", json!({ "Include": ["public."] }), "written as schema.table"),
        ("Tables", json!({ "Include": ["public.or.*"] }), "Tables.Include (the pattern"),
        ("Tables", json!({ "Include": ["public.a|public.b"] }), "Tables.Include (the pattern"),
        ("Tables", json!({ "Include": [format!("public.{long}")] }), "at most 63 bytes"),
        ("Tables", json!({ "Include": vec!["public.a"; 10_001] }), "at most 10000 tables"),
        ("Tables", json!({ "Exclude": ["public.a"] }), "Tables.Exclude"),
        ("Columns", json!({ "Include": ["public.a.id"] }), "Columns"),
        ("Columns", json!({ "Exclude": ["public.a.id"] }), "Columns"),
        ("SurrogateKeys", json!(["public.a:id"]), "SurrogateKeys"),
        (authentication, secrets(json!({ "Enabled": false })), "SecretsManagerConfiguration"),
        (authentication, secrets(json!({ "Enabled": true })), "SecretARN must be specified"),
        (authentication, secret("PG", "eu-west-1"), "SecretARN must be of the region"),
        (authentication, secret("none-AbC123", "us-east-1"), "CREATE SECRET \"none\""),
        (authentication, secret("NOBODY", "us-east-1"), "no USERNAME"),
    ];
    for (member, value, says) in cases {
        let mut given = configuration();
        given[member] = value;
        let input = request("orders", &given);
        let error = delivery.api("CreateDeliveryStream", input).await.unwrap_err();
        assert_eq!(error.code, "InvalidArgumentException", "{member}: {error}");
        assert!(error.message.contains(says), "{member}: {error}");
    }
    let whole = [
        (json!({ "DeliveryStreamType": "DatabaseAsSource" }), "required for DatabaseAsSource"),
        (json!({ "DatabaseSourceConfiguration": configuration() }), "only applicable"),
        (
            json!({
                "DeliveryStreamType": "DatabaseAsSource",
                "DatabaseSourceConfiguration": configuration(),
                "KinesisStreamSourceConfiguration": {},
            }),
            "only applicable",
        ),
    ];
    for (extra, says) in whole {
        let mut input = request("orders", &json!(null));
        input["DeliveryStreamType"] = json!("DirectPut");
        for (member, value) in extra.as_object().unwrap() {
            input[member] = value.clone();
        }
        let error = delivery.api("CreateDeliveryStream", input).await.unwrap_err();
        assert_eq!(error.code, "InvalidArgumentException", "{error}");
        assert!(error.message.contains(says), "{error}");
    }
    let name = "x".repeat(64);
    let error = delivery.api("CreateDeliveryStream", request(&name, &configuration())).await;
    assert!(error.unwrap_err().message.contains("at most 63 characters"));
    assert_eq!((calls(&world).len(), rows(&world).await), (0, 0), "nothing was made");
}

#[tokio::test(start_paused = true)]
async fn constraints_of_the_model_are_worded_as_aws_words_them() {
    let world = world().await;
    let delivery = world.start().await;
    let at = "databaseSourceConfiguration";
    let null = |member: &str| {
        format!(
            "Value null at '{at}.{member}' failed to satisfy constraint: Member must not be null"
        )
    };
    let required = [
        "type",
        "endpoint",
        "port",
        "databases",
        "tables",
        "snapshotWatermarkTable",
        "databaseSourceAuthenticationConfiguration",
        "databaseSourceVPCConfiguration",
    ];
    let error = delivery.api("CreateDeliveryStream", request("orders", &json!({}))).await;
    let all = required.map(null).join("; ");
    let error = error.unwrap_err();
    assert_eq!(error.code, "ValidationException");
    assert_eq!(error.message, format!("8 validation errors detected: {all}"));

    let authentication = "DatabaseSourceAuthenticationConfiguration";
    let secrets = |value: Value| json!({ "SecretsManagerConfiguration": value });
    let vpc = |name: &str| json!({ "VpcEndpointServiceName": name });
    let cases = [
        ("Type", json!("Oracle"), "[MySQL, PostgreSQL]"),
        ("Endpoint", json!(" "), "pattern: ^(?!\\s*$).+"),
        ("Endpoint", json!("x".repeat(256)), "length less than or equal to 255"),
        ("Port", json!(65_536), "value less than or equal to 65535"),
        ("Port", json!(-1), "value greater than or equal to 0"),
        ("SSLMode", json!("verify-full"), "[Disabled, Enabled]"),
        ("Databases", json!({ "Include": [""] }), "databases.include.1.member"),
        ("Databases", json!({ "Include": ["x".repeat(65)] }), "less than or equal to 64"),
        ("Tables", json!({ "Exclude": ["x".repeat(130)] }), "less than or equal to 129"),
        ("Tables", json!({ "Include": ["a\0.b"] }), "tables.include.1.member"),
        ("Columns", json!({ "Include": ["x".repeat(195)] }), "less than or equal to 194"),
        ("SnapshotWatermarkTable", json!(""), "snapshotWatermarkTable"),
        (authentication, json!({}), "secretsManagerConfiguration"),
        (authentication, secrets(json!({})), "secretsManagerConfiguration.enabled"),
        (
            authentication,
            secrets(json!({ "Enabled": true, "SecretARN": "arn:aws:s3:::x" })),
            "secretsManagerConfiguration.secretARN",
        ),
        (
            authentication,
            secrets(json!({ "Enabled": true, "SecretARN": SECRET_ARN, "RoleARN": "root" })),
            "secretsManagerConfiguration.roleARN",
        ),
        ("DatabaseSourceVPCConfiguration", json!({}), "vpcEndpointServiceName"),
        ("DatabaseSourceVPCConfiguration", vpc("short"), "greater than or equal to 47"),
        (
            "DatabaseSourceVPCConfiguration",
            vpc(&SERVICE.replace("vpce-svc", "vpce_svc")),
            "vpcEndpointServiceName",
        ),
    ];
    for (member, value, says) in cases {
        let mut given = configuration();
        given[member] = value;
        let input = request("orders", &given);
        let error = delivery.api("CreateDeliveryStream", input).await.unwrap_err();
        assert_eq!(error.code, "ValidationException", "{member}: {error}");
        assert!(error.message.contains(says), "{member}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_found_with_or_without_what_its_arn_appends_to_the_name() {
    let world = World::new().await;
    for name in ["PG", "prod/pg", "PG-ABC123", "quoted-AbC123"] {
        let made = secret(name, Some("reader"));
        world.capture.create_secret(made, IfExists::Fail).await.unwrap();
    }
    let delivery = world.start().await;
    let cases = [
        ("a", "PG", "PG"),
        ("b", "pg", "PG"),
        ("c", "pg-XyZ987", "PG"),
        ("d", "pg-AbC123", "PG-ABC123"),
        ("e", "quoted-AbC123", "quoted-AbC123"),
        ("f", "prod/pg-XyZ987", "prod/pg"),
    ];
    for (name, asked, found) in cases {
        let mut given = configuration();
        let secrets = &mut given["DatabaseSourceAuthenticationConfiguration"];
        // Another account's secret may be named, as AWS lets it be.
        secrets["SecretsManagerConfiguration"]["SecretARN"] =
            json!(format!("arn:aws:secretsmanager:us-east-1:111111111111:secret:{asked}"));
        delivery.create(name, 5, 60, of_type(&given)).await;
        let connections = world.capture.connections().await.unwrap();
        let made = connections.iter().find(|c| c.name == name).unwrap();
        assert_eq!(made.secret.as_deref(), Some(found), "{asked}");
    }
}
