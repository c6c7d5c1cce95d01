//! The guard of a server without credentials: a web page must not reach it through the browser.
//!
//! Loopback is no authentication boundary. A page of any site can send requests to 127.0.0.1, and
//! with a name that resolves to it (DNS rebinding) also read the replies. Both show in the request:
//! as a foreign `Origin` or `Sec-Fetch-Site`, or as a `Host` that is not one of ours.

use http::Uri;
use http::request::Parts;

use crate::api::ApiError;

/// Names that a request to this server may use: each stands for itself and for the names below it
/// (`localhost` for `lake.localhost`, which is how S3 addresses a bucket by host).
#[derive(Clone, Debug)]
pub struct AllowedHosts {
    names: Vec<String>,
}

impl AllowedHosts {
    /// `localhost`, the loopback addresses, and the operator's own `names` (without port).
    pub fn loopback_and(names: impl IntoIterator<Item = String>) -> Self {
        let own = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        let names = own.into_iter().chain(names.into_iter().map(|n| n.to_ascii_lowercase()));
        Self { names: names.filter(|n| !n.is_empty()).collect() }
    }

    fn allows(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        self.names.iter().any(|name| {
            host.strip_suffix(name.as_str()).is_some_and(|left| {
                // No name is below an address.
                left.is_empty()
                    || left.ends_with('.') && name.parse::<std::net::Ipv4Addr>().is_err()
            })
        })
    }
}

/// Lets a request pass only if its `Host` (or `:authority`) is allowed and its `Origin`, if it has
/// one, is too. The caller's duty: ask before anything else when signatures are not verified.
pub fn check(parts: &Parts, hosts: &AllowedHosts) -> Result<(), ApiError> {
    let named = hosts_of(parts);
    if named.is_empty() || !named.iter().all(|host| host.is_some_and(|h| hosts.allows(h))) {
        return Err(forbidden(
            "This Host is not in the allow-list. Call the server as localhost or 127.0.0.1, or \
             configure credentials or further host names.",
        ));
    }
    for origin in parts.headers.get_all("origin") {
        let host = origin.to_str().ok().and_then(|text| text.split_once("://"));
        if !host.and_then(|(_, rest)| name_of(rest)).is_some_and(|h| hosts.allows(h)) {
            return Err(forbidden("Calls from this Origin are not allowed without credentials."));
        }
    }
    // A script or image of a foreign page is fetched without an Origin, but not without this.
    let site = parts.headers.get("sec-fetch-site").map(|site| site.as_bytes());
    if !matches!(site, None | Some(b"same-origin" | b"none"))
        && !parts.headers.contains_key("origin")
    {
        return Err(forbidden(
            "Calls from a page of another site are not allowed without credentials.",
        ));
    }
    Ok(())
}

fn forbidden(text: &str) -> ApiError {
    ApiError { status: 403, code: "AccessDeniedException", message: text.to_owned() }
}

/// Every host a request names: in its headers and in its target.
fn hosts_of(parts: &Parts) -> Vec<Option<&str>> {
    let headers = parts.headers.get_all("host").iter();
    let named = headers.map(|value| value.to_str().ok().and_then(name_of));
    named.chain(parts.uri.authority().map(|a| name_of(a.as_str()))).collect()
}

/// The host of `host[:port]`; `None` if it is anything else.
fn name_of(authority: &str) -> Option<&str> {
    let uri: Uri = authority.parse().ok()?;
    let parsed = uri.authority()?;
    let (host, plain) = (parsed.host(), !authority.contains('@'));
    let start = authority.strip_prefix(host)?;
    let only_port = start.is_empty() || start.strip_prefix(':')?.parse::<u16>().is_ok();
    (plain && only_port && !host.is_empty()).then(|| &authority[..host.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_our_own_names_pass() {
        let hosts = AllowedHosts::loopback_and(["streams.test".to_owned()]);
        for good in [
            "localhost:4566",
            "LOCALHOST",
            "lake.localhost:4566",
            "lake.s3.localhost",
            "127.0.0.1:1",
            "[::1]:4566",
            "streams.test:80",
        ] {
            assert_eq!(check(&parts(&[("host", good)]), &hosts), Ok(()), "{good}");
        }
        for bad in [
            "evil.test",
            "notlocalhost",
            "localhost.evil.test",
            "a.127.0.0.1",
            "x@localhost",
            "localhost:99999",
            "",
        ] {
            assert_eq!(check(&parts(&[("host", bad)]), &hosts).unwrap_err().status, 403, "{bad}");
        }
        assert!(check(&parts(&[]), &hosts).is_err());
        assert!(check(&parts(&[("host", "localhost"), ("host", "evil.test")]), &hosts).is_err());
    }

    #[test]
    fn a_foreign_origin_is_refused() {
        let hosts = AllowedHosts::loopback_and([]);
        for (origin, good) in [
            ("http://localhost:3000", true),
            ("http://127.0.0.1", true),
            ("https://evil.test", false),
            ("http://localhost.evil.test", false),
            ("null", false),
        ] {
            let got = check(&parts(&[("host", "localhost"), ("origin", origin)]), &hosts);
            assert_eq!(got.is_ok(), good, "{origin}");
        }
    }

    #[test]
    fn a_script_of_a_foreign_page_is_refused() {
        let hosts = AllowedHosts::loopback_and([]);
        for (site, good) in
            [("none", true), ("same-origin", true), ("same-site", false), ("cross-site", false)]
        {
            let got = check(&parts(&[("host", "localhost"), ("sec-fetch-site", site)]), &hosts);
            assert_eq!(got.is_ok(), good, "{site}");
        }
    }

    #[test]
    fn over_http2_the_authority_is_the_host() {
        let hosts = AllowedHosts::loopback_and([]);
        let of = |uri: &str| Request::post(uri).body(()).unwrap().into_parts().0;
        assert!(check(&of("http://localhost:4566/"), &hosts).is_ok());
        assert!(check(&of("http://evil.test/"), &hosts).is_err());
    }
}
