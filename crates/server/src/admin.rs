//! `/healthz`, `/readyz` and `/metrics`.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hydrant_leases::Leases;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const CONNECTIONS_MAX: usize = 64;
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// What the admin endpoint shows.
pub(crate) struct Admin {
    /// Whether every other endpoint answers.
    pub(crate) ready: AtomicBool,
    /// The metrics of this process.
    pub(crate) metrics: PrometheusHandle,
    /// Whose metrics come and go, once it is there: each adds its own, as Prometheus reads them.
    pub(crate) more_metrics: OnceLock<Vec<WriteMetrics>>,
    /// The lease tables, once they are there: what they say is read when it is asked for.
    pub(crate) leases: OnceLock<Arc<Leases>>,
}

/// Adds metrics to a text.
pub(crate) type WriteMetrics = Box<dyn Fn(&mut String) + Send + Sync>;

/// Has the metrics of this process kept from here on.
pub(crate) fn install_metrics() -> Result<PrometheusHandle> {
    PrometheusBuilder::new().install_recorder().context("cannot start the metrics")
}

/// Serves until `shutdown`.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut upkeep = tokio::time::interval(UPKEEP_EVERY);
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = upkeep.tick() => {
                admin.metrics.run_upkeep();
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the admin address");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (admin, shutdown) = (Arc::clone(&admin), shutdown.clone());
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let (admin, (parts, _)) = (Arc::clone(&admin), request.into_parts());
                async move { Ok::<_, Infallible>(answer(&admin, &parts).await) }
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_READ_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = serving => {}
                () = shutdown.cancelled() => {}
            }
            drop(place);
        });
    }
}

async fn answer(admin: &Admin, request: &Parts) -> Response<Full<Bytes>> {
    let text = "text/plain; charset=utf-8";
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return reply(StatusCode::METHOD_NOT_ALLOWED, text, "GET only\n".into());
    }
    match request.uri.path() {
        "/healthz" => reply(StatusCode::OK, text, "ok\n".into()),
        "/readyz" if admin.ready.load(Ordering::Acquire) => {
            reply(StatusCode::OK, text, "ready\n".into())
        }
        "/readyz" => reply(StatusCode::SERVICE_UNAVAILABLE, text, "not ready\n".into()),
        "/metrics" => {
            let mut text = admin.metrics.render();
            admin.more_metrics.get().into_iter().flatten().for_each(|write| write(&mut text));
            match admin.leases.get().map(|leases| leases.exposition()) {
                None => {}
                Some(reading) => match reading.await {
                    Ok(leases) => text.push_str(&leases),
                    Err(error) => tracing::warn!(%error, "the lease tables cannot be read"),
                },
            }
            reply(StatusCode::OK, "text/plain; version=0.0.4", text.into())
        }
        _ => reply(StatusCode::NOT_FOUND, text, "try /healthz, /readyz or /metrics\n".into()),
    }
}

fn reply(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
