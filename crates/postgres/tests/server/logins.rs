//! Logging in: TLS, passwords, pinned sessions.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

/// An authority, and a server's certificate of it for a name.
pub(crate) fn certificate(name: &str) -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let server = server.signed_by(&key, &authority).unwrap();
    (authority.pem(), server.pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_session_is_pinned_whatever_the_server_prefers() {
    for version in versions() {
        let postgres = Postgres::of(&version, &[("statement_timeout", "1s")]).await;
        let sql = "ALTER ROLE postgres SET IntervalStyle = 'sql_standard'; \
                   ALTER ROLE postgres SET idle_session_timeout = '5s'";
        postgres.run(sql).await;
        let mut server = Server::connect(&postgres.access("mz_source").await).await.unwrap();
        assert_eq!(server.version() / 10_000, version.parse::<u32>().unwrap());
        let rows = server
            .query(
                "SELECT name, setting FROM pg_settings WHERE name IN ('DateStyle', \
                 'IntervalStyle', 'TimeZone', 'bytea_output', 'extra_float_digits', \
                 'statement_timeout', 'idle_session_timeout', 'transaction_timeout', 'search_path', \
                 'client_encoding', 'application_name', 'row_security')",
            )
            .await
            .unwrap();
        let mut found: BTreeMap<&str, &str> =
            rows.iter().map(|row| (row.text(0).unwrap(), row.text(1).unwrap())).collect();
        assert_eq!(found.remove("transaction_timeout").unwrap_or("0"), "0");
        let wanted = [
            ("DateStyle", "ISO, DMY"),
            ("IntervalStyle", "iso_8601"),
            ("TimeZone", "UTC"),
            ("application_name", "hydrant/mz_source"),
            ("bytea_output", "hex"),
            ("client_encoding", "UTF8"),
            ("extra_float_digits", "3"),
            ("idle_session_timeout", "0"),
            ("row_security", "off"),
            ("search_path", ""),
            ("statement_timeout", "0"),
        ];
        assert_eq!(found, BTreeMap::from(wanted), "PostgreSQL {version}");
    }
}

#[tokio::test]
async fn a_login_that_is_refused_says_why() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    let mut connection = postgres.connection();
    let clock = || std::sync::Arc::new(hydrant_core::clock::SystemClock);

    let wrong = secret("not it");
    let wrong = Access::new(&connection, Some(&wrong), "s", clock()).await.unwrap();
    let words = ["28P01", "password authentication failed", "PASSWORD SECRET"];
    failed(Server::connect(&wrong).await, Failure::Authentication, &words);
    failed(Replication::connect(&wrong).await, Failure::Authentication, &words);

    let none = Access::new(&connection, None, "s", clock()).await.unwrap();
    let words = ["role 'postgres'", "PASSWORD SECRET"];
    failed(Server::connect(&none).await, Failure::Authentication, &words);

    connection.database = "nowhere".into();
    let nowhere = access(&connection, "s").await;
    failed(Server::connect(&nowhere).await, Failure::Other, &["3D000", "nowhere"]);

    connection.user = None;
    failed(Access::new(&connection, None, "s", clock()).await, Failure::Authentication, &["USER"]);

    postgres.authenticate("host all all 127.0.0.1/32 reject\n");
    postgres.reload();
    let connection = postgres.connection();
    let end = Instant::now() + LONG;
    while Server::connect(&access(&connection, "s").await).await.is_ok() {
        assert!(Instant::now() < end);
        sleep(Duration::from_millis(20)).await;
    }
    let refused = Server::connect(&access(&connection, "s").await).await;
    failed(refused, Failure::Authentication, &["28000", "pg_hba.conf"]);
}

#[tokio::test]
async fn passwords_go_as_the_server_wants_them() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres.run("SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'pw'").await;
    postgres.authenticate(
        "host all old 127.0.0.1/32 md5\nhost all open 127.0.0.1/32 password\n\
         host all all 127.0.0.1/32 scram-sha-256\n",
    );
    postgres.run("CREATE ROLE open LOGIN PASSWORD 'pw'; SELECT pg_reload_conf()").await;
    sleep(Duration::from_millis(300)).await;
    let mut connection = postgres.connection();
    let pw = secret("pw");
    let clock = std::sync::Arc::new(hydrant_core::clock::SystemClock);
    connection.user = Some("old".into());
    let old = Access::new(&connection, Some(&pw), "s", clock.clone()).await.unwrap();
    Server::connect(&old).await.unwrap();
    connection.user = Some("open".into());
    let open = Access::new(&connection, Some(&pw), "s", clock).await.unwrap();
    let words = ["password in the open", "scram-sha-256"];
    failed(Server::connect(&open).await, Failure::Authentication, &words);
}

#[tokio::test]
async fn certificates_are_trusted_as_far_as_the_mode_says() {
    let Some(version) = postgres::everyday() else { return };
    let (authority, certificate_, key) = certificate("localhost");
    let (stranger, ..) = certificate("localhost");
    let ssl = [("ssl", "on"), ("ssl_min_protocol_version", "TLSv1.2")];
    let mut postgres = Postgres::stopped(&version, &ssl);
    postgres.keep("server.crt", &certificate_);
    postgres.keep("server.key", &key);
    postgres.authenticate("hostssl all all 127.0.0.1/32 scram-sha-256\n");
    postgres.start().await;

    let mut connection = postgres.connection();
    let plain = Server::connect(&access(&connection, "s").await).await;
    failed(plain, Failure::Authentication, &["no encryption"]);

    let mut with = async |host: &str, mode, authority: Option<&str>| {
        connection.host = host.into();
        connection.ssl_mode = mode;
        connection.ssl_authority = authority.map(str::to_owned);
        let access = access(&connection, "s").await;
        let walsender = Replication::connect(&access).await.map(drop);
        let server = Server::connect(&access).await;
        assert_eq!(walsender.is_ok(), server.is_ok());
        let mut server = server?;
        let rows = server.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await?;
        assert_eq!(rows[0].text(0), Some("t"));
        Ok::<(), ServerError>(())
    };
    let (ours, other) = (Some(authority.as_str()), Some(stranger.as_str()));
    with("localhost", SslMode::VerifyFull, ours).await.unwrap();
    with("127.0.0.1", SslMode::VerifyCa, ours).await.unwrap();
    with("127.0.0.1", SslMode::Require, None).await.unwrap();
    with("127.0.0.1", SslMode::Require, ours).await.unwrap();
    let words = ["127.0.0.1", "verify-ca"];
    failed(with("127.0.0.1", SslMode::VerifyFull, ours).await, Failure::Tls, &words);
    for mode in [SslMode::VerifyFull, SslMode::VerifyCa, SslMode::Require] {
        let words = ["invalid peer certificate", "SSL CERTIFICATE AUTHORITY"];
        failed(with("localhost", mode, other).await, Failure::Tls, &words);
    }
    failed(with("localhost", SslMode::VerifyFull, None).await, Failure::Tls, &["UnknownIssuer"]);

    let clock = || std::sync::Arc::new(hydrant_core::clock::SystemClock);
    connection.ssl_authority = Some("no PEM".into());
    failed(Access::new(&connection, None, "s", clock()).await, Failure::Tls, &["PEM"]);
    connection.ssl_mode = SslMode::Disable;
    failed(Access::new(&connection, None, "s", clock()).await, Failure::Tls, &["'disable'"]);
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_in_the_open() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    let mut connection = postgres.connection();
    connection.ssl_mode = SslMode::Require;
    let refused = Server::connect(&access(&connection, "s").await).await;
    failed(refused, Failure::Tls, &["has no TLS", "ssl = on"]);
}

#[tokio::test]
async fn a_server_that_is_away_passes() {
    let Some(mut postgres) = Postgres::everyday(&[]).await else { return };
    let access = postgres.access("s").await;
    let mut open = Server::connect(&access).await.unwrap();
    postgres.stop("fast").await;
    let error = open.query("SELECT 1").await.unwrap_err();
    assert!(matches!(&error, ServerError::Transient(text) if text.contains("57P01")), "{error}");
    let error = Server::connect(&access).await.unwrap_err();
    assert!(matches!(&error, ServerError::Transient(text) if text.contains("cannot reach")));
}

#[tokio::test]
async fn a_question_given_up_makes_a_connection_useless_and_says_so() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    let mut server = postgres.session().await;
    let asked = timeout(Duration::from_millis(100), server.query("SELECT pg_sleep(30)")).await;
    assert!(asked.is_err());
    let error = server.query("SELECT 1").await.unwrap_err();
    assert!(matches!(error, ServerError::Transient(_)), "{error}");
}
