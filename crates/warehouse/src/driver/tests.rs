//! The protocol as the drivers speak it, request by request.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Request, StatusCode, header};
use hydrant_core::{Clock, Random, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{DriverEndpoint, Options, SESSIONS_MAX};
use crate::stand_in::{PASSWORD, StandIn};

/// A clock that a test moves.
#[derive(Default)]
struct HandClock(Mutex<Timestamp>);

impl HandClock {
    fn advance(&self, secs: u64) {
        let mut now = self.0.lock();
        *now = now.plus(Duration::from_secs(secs));
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

struct Driver {
    endpoint: DriverEndpoint,
    token: String,
    master: String,
    requests: u32,
}

fn endpoint(open_to_all: bool) -> DriverEndpoint {
    with_clock(open_to_all, Arc::default())
}

fn with_clock(open_to_all: bool, clock: Arc<HandClock>) -> DriverEndpoint {
    let options = Options { statement_wait: Duration::from_millis(100), ..Options::default() };
    let random = Arc::new(Random::from_seed(11));
    DriverEndpoint::new(Arc::new(StandIn { open_to_all }), clock, random, options)
}

fn credentials(user: &str, password: &str) -> Value {
    json!({"data": {"LOGIN_NAME": user, "PASSWORD": password, "ACCOUNT_NAME": "any"}})
}

async fn call(
    endpoint: &DriverEndpoint,
    method: &str,
    uri: &str,
    token: &str,
    body: &Value,
) -> Value {
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header(header::AUTHORIZATION, format!("Snowflake Token=\"{token}\""))
        .body(Bytes::from(body.to_string()))
        .unwrap();
    let response = endpoint.handle(request).await;
    assert_eq!(response.status(), StatusCode::OK, "{uri}: {:?}", response.body());
    serde_json::from_slice(response.body()).unwrap()
}

impl Driver {
    async fn connect(endpoint: DriverEndpoint) -> Self {
        let uri = "/session/v1/login-request?databaseName=twitter&schemaName=%22Mixed%22";
        let reply = call(&endpoint, "POST", uri, "", &credentials("alice", PASSWORD)).await;
        assert_eq!(reply["success"], true, "{reply}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let data = &reply["data"];
        assert_eq!(data["sessionInfo"]["databaseName"], "TWITTER");
        assert_eq!(data["sessionInfo"]["schemaName"], "Mixed");
        let (token, master) = (text(&data["token"]), text(&data["masterToken"]));
        Self { endpoint, token, master, requests: 0 }
    }

    async fn post(&self, uri: &str, body: &Value) -> Value {
        call(&self.endpoint, "POST", uri, &self.token, body).await
    }

    async fn get(&self, uri: &str) -> Value {
        call(&self.endpoint, "GET", uri, &self.token, &json!({})).await
    }

    async fn run(&mut self, body: Value) -> Value {
        self.requests += 1;
        let uri = format!("/queries/v1/query-request?requestId=r{}", self.requests);
        self.post(&uri, &body).await
    }

    async fn sql(&mut self, sql: &str) -> Value {
        self.run(json!({"sqlText": sql, "asyncExec": false, "sequenceId": 1})).await
    }
}

#[tokio::test]
async fn every_type_as_drivers_read_it() {
    let mut driver = Driver::connect(endpoint(false)).await;
    let reply = driver.sql("select types").await;
    let data = &reply["data"];
    assert_eq!(reply["success"], true);
    assert_eq!(
        data["rowset"],
        json!([
            [
                "42",
                "12345678901234567890123",
                "-12.50",
                "0.1",
                "Żółw's",
                "1",
                "19675",
                "80000.123456789",
                "1700000000.123456789",
                "1700000000.123456789",
                "00FF",
                "{\"a\":[1,\"x\"]}"
            ],
            [null, null, null, null, null, null, null, null, null, null, null, null]
        ])
    );
    let kinds: Vec<&str> =
        data["rowtype"].as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
    let timestamps = ["time", "timestamp_ntz", "timestamp_ltz"];
    assert_eq!(kinds[..4], ["fixed", "fixed", "fixed", "real"]);
    assert_eq!(kinds[7..10], timestamps);
    assert_eq!(data["rowtype"][2]["scale"], 2);
    assert_eq!((&data["total"], &data["queryResultFormat"]), (&json!(2), &json!("json")));
    assert_eq!(data["finalDatabaseName"], "TWITTER");
    let reply = driver.sql("create database other").await;
    assert_eq!(reply["data"]["finalDatabaseName"], "OTHER");
    assert_eq!(reply["data"]["rowset"], json!([["Database successfully created."]]));
    let reply = driver.sql("insert x").await;
    assert_eq!(reply["data"]["statementTypeId"], 0x3100);
    assert_eq!(reply["data"]["rowset"], json!([["3"]]));
    let reply = driver.run(json!({"sqlText": "select types", "describeOnly": true})).await;
    assert_eq!((&reply["data"]["rowset"], &reply["data"]["total"]), (&json!([]), &json!(0)));
    assert_eq!(reply["data"]["rowtype"].as_array().unwrap().len(), 12);
}

#[tokio::test]
async fn errors_have_code_state_and_text() {
    let mut driver = Driver::connect(endpoint(false)).await;
    let reply = driver.sql("missing").await;
    assert_eq!((&reply["success"], &reply["code"]), (&json!(false), &json!("002003")));
    assert_eq!(reply["data"]["sqlState"], "02000");
    assert!(reply["message"].as_str().unwrap().contains("does not exist or not authorized"));
    assert_eq!(driver.sql("select panic").await["code"], "000603");
    assert_eq!(driver.sql("").await["code"], "001003");
    let limit = json!({"STATEMENT_TIMEOUT_IN_SECONDS": 1});
    let body = json!({"sqlText": "select forever", "asyncExec": true, "parameters": limit});
    let id = driver.run(body).await["data"]["queryId"].as_str().unwrap().to_owned();
    let reply = finished(&mut driver, &format!("/queries/{id}/result")).await;
    assert_eq!(reply["code"], "000630");
    let reply = driver.sql("insert x; insert y").await;
    assert_eq!(
        reply["message"],
        "Actual statement count 2 did not match the desired statement count 1."
    );
    assert_eq!(driver.sql("select types").await["success"], true);
}

#[tokio::test]
async fn several_statements_where_they_are_counted() {
    let mut driver = Driver::connect(endpoint(false)).await;
    let body =
        json!({"sqlText": "insert x; select names", "parameters": {"MULTI_STATEMENT_COUNT": 2}});
    let reply = driver.run(body).await;
    let ids = reply["data"]["resultIds"].as_str().unwrap();
    assert_eq!(reply["data"]["resultTypes"], format!("{},{}", 0x3100, 0x1000));
    let results: Vec<&str> = ids.split(',').collect();
    assert_eq!(results.len(), 2);
    let first = driver.get(&format!("/queries/{}/result", results[0])).await;
    assert_eq!(first["data"]["rowset"], json!([["3"]]));
    let state = driver.get(&format!("/monitoring/queries/{}", results[1])).await;
    assert_eq!(state["data"]["queries"][0]["status"], "SUCCESS");
}

#[tokio::test]
async fn values_are_bound() {
    let mut driver = Driver::connect(endpoint(false)).await;
    let bindings = json!({
        "2": {"type": "TEXT", "value": null},
        "1": {"type": "FIXED", "value": "7"},
    });
    let reply = driver.run(json!({"sqlText": "echo ? ?", "bindings": bindings})).await;
    assert_eq!(reply["data"]["rowset"], json!([["7", null]]));
    let bindings = json!({"1": {"type": "TEXT", "value": ["a", "b"]}});
    let reply = driver.run(json!({"sqlText": "echo ?", "bindings": bindings})).await;
    assert_eq!((&reply["code"], &reply["data"]["sqlState"]), (&json!("000002"), &json!("0A000")));
}

#[tokio::test]
async fn only_who_knows_the_password_gets_a_token() {
    let endpoint = endpoint(false);
    let login = "/session/v1/login-request";
    for (user, password) in [("alice", "wrong"), ("mallory", PASSWORD), ("", "")] {
        let reply = call(&endpoint, "POST", login, "", &credentials(user, password)).await;
        assert_eq!((&reply["success"], &reply["code"]), (&json!(false), &json!("390100")));
    }
    let mut body = credentials("alice", PASSWORD);
    body["data"]["AUTHENTICATOR"] = "SNOWFLAKE_JWT".into();
    let reply = call(&endpoint, "POST", login, "", &body).await;
    assert!(reply["message"].as_str().unwrap().contains("SNOWFLAKE_JWT is not supported"));
    let query = json!({"sqlText": "select types"});
    let reply = call(&endpoint, "POST", "/queries/v1/query-request", "guess", &query).await;
    assert_eq!(reply["code"], "390111");
    let mut body = credentials("alice", PASSWORD);
    body["data"]["SESSION_PARAMETERS"] = json!({"CLIENT_PREFETCH_THREADS": 4, "QUERY_TAG": "x"});
    let reply = call(&endpoint, "POST", login, "", &body).await;
    assert_eq!(reply["success"], false, "a parameter that the engine refuses");
}

#[tokio::test]
async fn tokens_expire_and_are_renewed() {
    let clock = Arc::new(HandClock::default());
    let mut driver = Driver::connect(with_clock(false, Arc::clone(&clock))).await;
    clock.advance(3_601);
    assert_eq!(driver.sql("select types").await["code"], "390112");
    let renew = json!({"oldSessionToken": driver.token, "requestType": "RENEW"});
    let uri = "/session/token-request";
    let reply = call(&driver.endpoint, "POST", uri, &driver.master, &renew).await;
    let old = std::mem::replace(
        &mut driver.token,
        reply["data"]["sessionToken"].as_str().unwrap().to_owned(),
    );
    assert_eq!(driver.sql("select names").await["success"], true);
    assert_eq!(driver.post("/session/heartbeat", &json!({})).await["success"], true);
    let reply = call(&driver.endpoint, "POST", "/session/heartbeat", &old, &json!({})).await;
    assert_eq!(reply["code"], "390111");
    clock.advance(4 * 3_600 + 1);
    let reply = call(&driver.endpoint, "POST", uri, &driver.master, &renew).await;
    assert_eq!(reply["code"], "390114");
    assert_eq!(driver.sql("select names").await["code"], "390111");
}

/// The result at `url`, asked for until it is there.
async fn finished(driver: &mut Driver, url: &str) -> Value {
    for _ in 0..100 {
        let reply = driver.get(url).await;
        if reply["code"] != "333333" {
            return reply;
        }
    }
    panic!("no result in time");
}

#[tokio::test]
async fn a_slow_statement_is_asked_for_again() {
    let mut driver = Driver::connect(endpoint(false)).await;
    let reply = driver.sql("select slow").await;
    assert_eq!((&reply["success"], &reply["code"]), (&json!(true), &json!("333333")));
    let url = reply["data"]["getResultUrl"].as_str().unwrap().to_owned();
    let reply = finished(&mut driver, &url).await;
    assert_eq!(reply["data"]["rowset"], json!([["done"]]));
    let reply = driver.run(json!({"sqlText": "select slow", "asyncExec": true})).await;
    assert_eq!(reply["code"], "333334");
    let id = reply["data"]["queryId"].as_str().unwrap().to_owned();
    let monitor = format!("/monitoring/queries/{id}");
    assert_eq!(driver.get(&monitor).await["data"]["queries"][0]["status"], "RUNNING");
    finished(&mut driver, &format!("/queries/{id}/result")).await;
    assert_eq!(driver.get(&monitor).await["data"]["queries"][0]["status"], "SUCCESS");
    let reply = driver.sql(&format!("select * from table(result_scan('{id}'))")).await;
    assert_eq!(reply["data"]["rowset"], json!([["done"]]));
}

#[tokio::test]
async fn a_repeated_request_does_not_run_twice_and_an_aborted_one_ends() {
    let mut driver = Driver::connect(endpoint(false)).await;
    let first = driver.sql("insert x").await;
    driver.requests -= 1;
    let again = driver.sql("insert x").await;
    assert_eq!(first["data"]["queryId"], again["data"]["queryId"]);
    let (running, aborted) = tokio::join!(
        driver.endpoint.handle(
            Request::post("/queries/v1/query-request?requestId=f")
                .header(header::AUTHORIZATION, format!("Snowflake Token=\"{}\"", driver.token))
                .body(Bytes::from(json!({"sqlText": "select forever"}).to_string()))
                .unwrap()
        ),
        async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            driver.post("/queries/v1/abort-request?requestId=g", &json!({"requestId": "f"})).await
        }
    );
    assert_eq!(aborted["success"], true);
    let running: Value = serde_json::from_slice(running.body()).unwrap();
    assert_eq!(running["code"], "000604");
    assert_eq!(driver.sql("select types").await["success"], true);
    driver.post("/session?delete=true", &json!({})).await;
    assert_eq!(driver.sql("select types").await["code"], "390111");
}

#[tokio::test]
async fn bodies_and_sessions_are_bounded() {
    let endpoint = endpoint(true);
    let login = |body: Vec<u8>, gzip: bool| {
        let mut request = Request::post("/session/v1/login-request");
        if gzip {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        endpoint.handle(request.body(Bytes::from(body)).unwrap())
    };
    let gzip = |body: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let good = credentials("anyone", "at all").to_string().into_bytes();
    assert_eq!(login(gzip(&good), true).await.status(), StatusCode::OK);
    for (body, gzipped) in [
        (gzip(&vec![b' '; 32 << 20]), true),
        (b"\x1f\x8b garbage".to_vec(), true),
        (b"{\"data\":".to_vec(), false),
        (vec![b'['; 10_000], false),
        (Vec::new(), false),
    ] {
        assert_eq!(login(body, gzipped).await.status(), StatusCode::BAD_REQUEST);
    }
    for _ in 1..SESSIONS_MAX {
        assert_eq!(login(good.clone(), false).await.status(), StatusCode::OK);
    }
    assert_eq!(login(good, false).await.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[test]
fn paths_are_those_of_drivers_only() {
    for path in [
        "/session",
        "/session/v1/login-request",
        "/queries/01b2c3d4-0000-4000-8000-000000000000/result",
        "/monitoring/queries/01b2c3d4-0000-4000-8000-000000000000",
        "/monitoring/queries//01b2c3d4-0000-4000-8000-000000000000",
        "/telemetry/send",
    ] {
        assert!(DriverEndpoint::owns(path), "{path}");
    }
    for path in ["/", "/sessions", "/queries/a/result", "/queries", "/bucket/session", "/session/"]
    {
        assert!(!DriverEndpoint::owns(path), "{path}");
    }
}
