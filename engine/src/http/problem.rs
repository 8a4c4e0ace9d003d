use axum::{
    Json,
    extract::rejection::{BytesRejection, PathRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use crate::{audit::AuditFault, replay::ReplayFault, report::ReportFault, store::StoreFault};

/// An RFC 9457 problem document.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    more: Map<String, Value>,
}

impl Problem {
    /// A problem with a stable code and a sentence for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), more: Map::new() }
    }

    /// The request is wrong.
    pub fn bad(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// There is no such thing.
    pub fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// We failed; what failed is logged and not told.
    pub fn internal(fault: &dyn std::fmt::Display) -> Self {
        tracing::error!(%fault, "a request could not be answered");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the record cannot be read; the operator must look")
    }

    /// Stable code.
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// Status and sentence, for a page.
    pub fn parts(&self) -> (StatusCode, &str) {
        (self.status, &self.detail)
    }

    /// With a further member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("urn:tribunal:problem:{}", self.code),
            "title": self.status.canonical_reason().unwrap_or("Problem"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        for (name, value) in self.more {
            body[name] = value;
        }
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreFault> for Problem {
    fn from(fault: StoreFault) -> Self {
        Self::internal(&fault)
    }
}

impl From<AuditFault> for Problem {
    fn from(fault: AuditFault) -> Self {
        Self::internal(&fault)
    }
}

impl From<ReplayFault> for Problem {
    fn from(fault: ReplayFault) -> Self {
        Self::internal(&fault)
    }
}

impl From<tokio::task::JoinError> for Problem {
    fn from(fault: tokio::task::JoinError) -> Self {
        Self::internal(&fault)
    }
}

impl From<ReportFault> for Problem {
    fn from(fault: ReportFault) -> Self {
        let (code, detail) = (fault.code(), fault.to_string());
        match &fault {
            ReportFault::BadRequest(_) | ReportFault::RequestIdReused(_) => {
                Self::bad(code, detail).with("field", fault.field().unwrap_or("request"))
            }
            ReportFault::Busy => Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail),
            ReportFault::Deadline(_) => Self::new(StatusCode::GATEWAY_TIMEOUT, code, detail),
            // Nobody reads it any more but who cancelled; nginx's number for that is no registered status.
            ReportFault::Cancelled => Self::new(StatusCode::CONFLICT, code, detail),
            ReportFault::Record(_) | ReportFault::Ended(_) => Self::internal(&fault),
        }
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "oversized", "the body is longer than is taken here")
            }
            _ => Self::bad("body", format!("the body cannot be read: {}", rejection.body_text())),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad("query", rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::bad("path", rejection.body_text())
    }
}
