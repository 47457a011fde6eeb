//! `/metrics`, `/healthz` and `/readyz`.

use api::Health;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::call::Calls;
use crate::metrics::{METRICS_CONTENT_TYPE, encode};

pub(crate) fn router(calls: Calls) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(calls)
}

/// All metrics, in OpenMetrics text.
async fn metrics(State(calls): State<Calls>) -> Response {
    let stats = calls.node.stats().await;
    let info = calls.node.node_info().await;
    match (stats, info) {
        (Ok(stats), Ok(info)) => match encode(stats, info, calls.counts()) {
            Ok(text) => ([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response(),
            Err(error) => failed(&error),
        },
        (Err(error), _) | (_, Err(error)) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> Response {
    tracing::error!(reason = %error, "metrics cannot be read");
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
}

/// Alive: this process answers.
async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready: hosts may be sent here.
async fn readyz(State(calls): State<Calls>) -> Response {
    let health = calls.node.health();
    let mut text = format!("{}\n", health.as_str());
    if let Health::Degraded(complaints) = &health {
        for complaint in complaints {
            text.push_str(complaint);
            text.push('\n');
        }
    }
    let code = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, text).into_response()
}
