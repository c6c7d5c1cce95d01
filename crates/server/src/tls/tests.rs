//! Certificates that are given, made, renewed and refused.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct At(Mutex<Timestamp>);

impl Clock for At {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

const DAYS: Duration = Duration::from_secs(86_400);

fn start() -> Timestamp {
    Timestamp::from_millis(1_767_323_045_000)
}

fn names() -> Vec<String> {
    ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec()
}

fn texts(dir: &Path) -> [String; 2] {
    ["ca.pem", "server.pem"].map(|name| std::fs::read_to_string(dir.join(name)).unwrap())
}

#[test]
fn a_development_certificate_is_kept_until_it_runs_out() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ready = |names: &[String], now| Development::ready(dir, names, now).unwrap();
    let first = ready(&names(), start());
    let made = texts(dir);
    for name in ["ca.key", "server.pem"] {
        let mode = std::fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(first.renew > start().plus(DAYS * 300));
    ready(&names(), start().plus(DAYS * 300));
    assert_eq!(texts(dir), made);
    // Another name, or a certificate near its end: the authority stays.
    let more = [names(), vec!["streams.test".to_owned()]].concat();
    ready(&more, start());
    let [ca, pair] = texts(dir);
    assert!(ca == made[0] && pair != made[1]);
    ready(&more, start().plus(DAYS * 380));
    let [ca, later] = texts(dir);
    assert!(ca == made[0] && later != pair);
    // The authority near its end, or its key gone.
    ready(&more, start().plus(DAYS * 3_640));
    let [ca, _] = texts(dir);
    assert_ne!(ca, made[0]);
    std::fs::remove_file(dir.join("ca.key")).unwrap();
    ready(&names(), start().plus(DAYS * 3_640));
    assert_ne!(texts(dir)[0], ca);
}

#[test]
fn broken_files_of_our_own_are_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let source = || Source::Development { dir: dir.path().to_owned(), names: names() };
    load(&source(), start()).unwrap();
    let before = texts(dir.path());
    std::fs::write(dir.path().join("server.pem"), "nonsense").unwrap();
    load(&source(), start()).unwrap();
    assert_ne!(texts(dir.path()), before);
}

#[test]
fn a_given_certificate_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("a.pem"), dir.path().join("a.key"));
    let give = || {
        let pair = rcgen::generate_simple_self_signed(names()).unwrap();
        std::fs::write(&cert, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    };
    let source = Source::Given { cert: cert.clone(), key: key.clone() };
    let clock = Arc::new(At(Mutex::new(start())));
    let none = Tls::open(source, clock.clone()).err().unwrap();
    assert!(format!("{none:#}").contains("a.pem"), "{none:#}");

    give();
    let source = Source::Given { cert: cert.clone(), key: key.clone() };
    let tls = Tls::open(source, clock).unwrap();
    let config = || Arc::clone(&tls.config.read());
    let first = config();
    tls.look();
    assert!(Arc::ptr_eq(&first, &config()));
    // A certificate without its key yet, then with it.
    std::fs::write(&key, "half a file").unwrap();
    tls.look();
    assert!(Arc::ptr_eq(&first, &config()));
    give();
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    std::fs::File::options().write(true).open(&key).unwrap().set_modified(later).unwrap();
    tls.look();
    assert!(!Arc::ptr_eq(&first, &config()));

    // A key that cannot be read is read once it can be, though it is the same file.
    let held = config();
    give();
    let hidden = dir.path().join("hidden");
    std::fs::rename(&key, &hidden).unwrap();
    std::fs::create_dir(&key).unwrap();
    tls.look();
    tls.look();
    assert!(Arc::ptr_eq(&held, &config()));
    std::fs::remove_dir(&key).unwrap();
    std::fs::rename(&hidden, &key).unwrap();
    tls.look();
    assert!(!Arc::ptr_eq(&held, &config()));

    let other = rcgen::generate_simple_self_signed(names()).unwrap();
    std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    let mismatch = read(&cert, &key).unwrap_err();
    assert!(format!("{mismatch:#}").contains("a.key"), "{mismatch:#}");
    std::fs::write(&cert, "").unwrap();
    assert!(read(&cert, &key).unwrap_err().to_string().contains("no certificate"));
}

#[test]
fn a_certificate_that_runs_out_is_replaced_while_serving() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(At(Mutex::new(start())));
    let source = Source::Development { dir: dir.path().to_owned(), names: names() };
    let tls = Tls::open(source, clock.clone()).unwrap();
    assert_eq!(tls.own_authority(), Some(dir.path().join("ca.pem")));
    let before = Arc::clone(&tls.config.read());
    tls.look();
    assert!(Arc::ptr_eq(&before, &tls.config.read()));
    *clock.0.lock() = start().plus(DAYS * 400);
    tls.look();
    assert!(!Arc::ptr_eq(&before, &tls.config.read()));
}
