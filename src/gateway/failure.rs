//! What a refusal looks like over plain HTTP.

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use serde::Serialize;
use tonic::{Code, Status, body::Body};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The body of a refusal. `error` says the same as `message`: clients from the time before etcd 3.6 look there.
#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a str,
    code: i32,
    message: &'a str,
}

/// The line of a stream that was refused, or broke off.
#[derive(Serialize)]
struct Line<'a> {
    error: StreamError<'a>,
}

#[derive(Serialize)]
struct StreamError<'a> {
    code: i32,
    message: &'a str,
}

/// The answer to a call that was refused.
pub(super) fn refusal(status: &Status) -> Response<Body> {
    let refusal = Refusal { error: status.message(), code: status.code().into(), message: status.message() };
    answer(status, text(&refusal))
}

/// The answer to a call of replies without end that was refused before the first of them.
pub(super) fn stream_refusal(status: &Status) -> Response<Body> {
    answer(status, line(status))
}

/// The last line of a stream that broke off.
pub(super) fn line(status: &Status) -> Vec<u8> {
    let mut line = text(&Line { error: StreamError { code: status.code().into(), message: status.message() } });
    line.push(b'\n');
    line
}

fn text(refusal: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(refusal).expect("numbers and texts alone")
}

fn answer(status: &Status, text: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::from(text)));
    *response.status_mut() = http_status(status.code());
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    if status.code() == Code::Unauthenticated
        && let Ok(text) = HeaderValue::from_str(status.message())
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, text);
    }
    response
}

/// The status of HTTP for a code of gRPC, as in etcd's gateway.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // Nginx's: the client closed the request.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}
