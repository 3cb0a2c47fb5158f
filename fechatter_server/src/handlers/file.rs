//! Uploads, downloads, and links to files.

use std::time::Duration;

use axum::body::Body;
use axum::extract::multipart::{Field, Multipart};
use axum::extract::{FromRequest, Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum_extra::extract::CookieJar;
use bytes::Bytes;
use fechatter_core::http::ApiError;
use fechatter_core::message::File;
use fechatter_core::token::{self, AuthUser};
use fechatter_core::{SessionId, UserId, WorkspaceId};
use futures_util::{Stream, StreamExt, TryStreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{AppError, ErrorKind, Result};
use crate::handlers::auth::{MEDIA_COOKIE, check_same_site};
use crate::models::file::{self, Visible};
use crate::models::session;
use crate::models::session::current_user::CurrentUser;
use crate::services::file_store::Received;
use crate::services::limits::Caller;
use crate::services::media::OTHER;
use crate::services::media_token::LINK_VALIDITY;
use crate::state::AppState;
use crate::utils::file_url::FileUrl;
use crate::utils::json::Json;
use crate::utils::query::Params;
use crate::utils::text::FileName;

/// The longest time in which an upload sends nothing.
const IDLE: Duration = Duration::from_secs(30);
/// The headers of a file and of a picture: nothing in it can run, and its right is checked each time.
pub(super) const PROTECTED: [(HeaderName, &str); 2] = [
    (CACHE_CONTROL, "private, no-cache"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox; frame-ancestors 'none'"),
];
/// The characters of `ext-value` that need no escape (RFC 8187, section 3.2.1).
const ATTRIBUTE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The routes of this module, but for uploads.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    use ErrorKind as E;
    OpenApiRouter::new()
        .routes(routes!(download).errors(&[
            E::NotFound,
            E::RangeNotSatisfiable,
            E::CrossSite,
            E::SessionEnded,
            E::Suspended,
            E::WorkspaceSuspended,
        ]))
        .routes(routes!(link).errors(&[E::NotFound]))
}

/// The route of uploads, whose bodies are not read into memory, and take their time.
pub(crate) fn uploads() -> OpenApiRouter<AppState> {
    use ErrorKind as E;
    let errors = [E::NoFiles, E::BadFilename, E::TooLarge, E::QuotaExceeded, E::RateLimited];
    OpenApiRouter::new().routes(routes!(upload).errors(&errors))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct UploadParams {
    /// `file`: the response has whole files instead of their addresses.
    #[param(inline)]
    expand: Option<Expansion>,
}

/// An addition to the response of an upload.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Expansion {
    File,
}

/// The response of an upload: the addresses of the files, or the files.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Uploaded {
    Urls(Vec<String>),
    Files(Vec<File>),
}

/// Stores files: those of a form with any field names, or one as the body itself, with its name in
/// `X-File-Name`, percent-encoded.
#[utoipa::path(post, path = "/api/upload", operation_id = "upload", params(UploadParams),
    request_body(content(
        (String = "multipart/form-data"), (String = "application/octet-stream"))),
    responses((status = 200, body = Uploaded)))]
async fn upload(
    caller: CurrentUser,
    State(state): State<AppState>,
    Params(params): Params<UploadParams>,
    request: Request,
) -> Result<Json<Uploaded>> {
    let _permit = state.limits.upload(caller.workspace_id, caller.id)?;
    let mut upload =
        Upload { state: &state, caller, left: state.config.files.max_upload(), files: Vec::new() };
    if is_multipart(request.headers()) {
        let form = Multipart::from_request(request, &()).await;
        let mut form = form.map_err(|_| AppError::invalid("body", "is not a form with files"))?;
        while let Some(field) = next_field(&mut form).await? {
            let Some(name) = field.file_name().map(ToOwned::to_owned) else { continue };
            let name = FileName::try_from(&*name)?;
            upload.store(&name, field.map_err(|_| broken_off())).await?;
        }
    } else {
        let name = request.headers().get("x-file-name").and_then(|name| name.to_str().ok());
        let name = name.ok_or(AppError::BadFilename("the header X-File-Name is missing"))?;
        let name = percent_decode_str(name).decode_utf8();
        let name = name.map_err(|_| AppError::BadFilename("X-File-Name is not valid UTF-8"))?;
        let name = FileName::try_from(&*name)?;
        let body = request.into_body().into_data_stream();
        upload.store(&name, body.map_err(|_| broken_off())).await?;
    }
    match (&*upload.files, params.expand) {
        ([], _) => Err(AppError::NoFiles),
        (_, Some(Expansion::File)) => Ok(Json(Uploaded::Files(upload.files))),
        (files, None) => {
            Ok(Json(Uploaded::Urls(files.iter().map(|file| file.url.clone()).collect())))
        }
    }
}

fn is_multipart(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/form-data"))
}

async fn next_field(form: &mut Multipart) -> Result<Option<Field<'_>>> {
    let field = timeout(IDLE, form.next_field()).await.map_err(|_| broken_off())?;
    field.map_err(|_| AppError::invalid("body", "is not a form with files"))
}

fn broken_off() -> AppError {
    AppError::invalid("body", "ends too early")
}

/// An upload of one or more files.
struct Upload<'a> {
    state: &'a AppState,
    caller: CurrentUser,
    /// The number of bytes that may still come.
    left: u64,
    files: Vec<File>,
}

impl Upload<'_> {
    /// Receives a file and stores it. After an error, nothing is left of it.
    async fn store(
        &mut self,
        name: &FileName,
        bytes: impl Stream<Item = Result<Bytes>>,
    ) -> Result<()> {
        if self.files.len() >= file::MAX_FILES {
            return Err(AppError::TooLarge("an upload has at most 20 files"));
        }
        let received = self.receive(bytes).await?;
        self.left = self.left.saturating_sub(received.size);
        let (db, store) = (&self.state.db, &self.state.files);
        let config = &self.state.config.files;
        let stored = file::add(db, store, config, &self.caller, (received, name.as_str())).await?;
        self.files.push(stored);
        Ok(())
    }

    async fn receive(&self, bytes: impl Stream<Item = Result<Bytes>>) -> Result<Received> {
        let most = self.state.config.files.max_file().min(self.left);
        let mut incoming = self.state.files.begin();
        let mut bytes = std::pin::pin!(bytes);
        while let Some(chunk) = timeout(IDLE, bytes.next()).await.map_err(|_| broken_off())? {
            let chunk = chunk?;
            if incoming.size() + u64::try_from(chunk.len()).unwrap_or(u64::MAX) > most {
                return Err(AppError::TooLarge("the file is too large, or all of them together"));
            }
            incoming.write(&chunk).await.map_err(file::store_error)?;
        }
        incoming.finish().await.map_err(file::store_error)
    }
}

/// The bytes of a file or a picture.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub(super) struct Binary(#[expect(dead_code, reason = "describes a response")] Bytes);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DownloadParams {
    /// `1`: as an attachment, whatever its type is.
    #[param(value_type = Option<i64>, minimum = 0, maximum = 1)]
    download: Option<String>,
    /// The session of a link.
    session: Option<SessionId>,
    /// The end of a link, in seconds since 1970.
    expires: Option<i64>,
    /// The signature of a link.
    signature: Option<String>,
}

/// Returns a file to those who have uploaded it, or are in a chat that holds it.
#[utoipa::path(get, path = "/api/files/{ws}/{a}/{b}/{rest}", operation_id = "download_file", security(()),
    params(("ws" = i64, Path), ("a" = String, Path), ("b" = String, Path), ("rest" = String, Path),
        DownloadParams),
    responses(
        (status = 200, body = inline(Binary), content_type = "application/octet-stream"),
        (status = 206, description = "A part of the file", body = inline(Binary),
            content_type = "application/octet-stream"),
        (status = 304)))]
async fn download(
    State(state): State<AppState>,
    jar: CookieJar,
    Params(params): Params<DownloadParams>,
    parts: Parts,
) -> Result<Response> {
    let path = parts.uri.path().strip_prefix("/api").unwrap_or_default();
    let url: FileUrl = path.parse().map_err(|_| AppError::NotFound)?;
    let session_id = session_of_link(&state, &url, &params)?;
    let (user_id, _, _permit) =
        find_reader(&state, &jar, &parts, Some(url.workspace_id), session_id).await?;
    let file = file::find_visible(&state.db, user_id, &url).await?;
    let is_attachment = params.download.as_deref() == Some("1") || file.mime == OTHER;
    respond(&state, &url, &file, is_attachment, &parts.headers).await
}

/// Returns the session of a signed link, if the request has all three parts of one.
fn session_of_link(
    state: &AppState,
    url: &FileUrl,
    params: &DownloadParams,
) -> Result<Option<SessionId>> {
    match (params.session, params.expires, &params.signature) {
        (Some(session), Some(expires), Some(signature)) => {
            let now = state.verifier.clock().now().timestamp();
            let key = state.refresh_key.media_key();
            let is_valid =
                expires >= now && key.is_signed(session, &url.to_string(), expires, signature);
            if is_valid { Ok(Some(session)) } else { Err(AppError::NotFound) }
        }
        (None, None, None) => Ok(None),
        _ => Err(AppError::NotFound),
    }
}

/// Returns the account that asks for a file or a picture, active in its workspace: by access token,
/// signed link or cookie. With an access token, the workspace is that of the token, and no other one.
pub(super) async fn find_reader(
    state: &AppState,
    jar: &CookieJar,
    parts: &Parts,
    workspace_id: Option<WorkspaceId>,
    session_of_link: Option<SessionId>,
) -> Result<(UserId, WorkspaceId, impl Sized + use<>)> {
    if let Some(token) = token::bearer(&parts.headers) {
        let user = state.verifier.verify(token).map_err(ApiError::from)?;
        let AuthUser { id, workspace_id: own, session_id, .. } = user;
        if workspace_id.is_some_and(|workspace_id| workspace_id != own) {
            return Err(AppError::NotFound);
        }
        state.limits.take(Caller::Person(id))?;
        let permit = state.limits.connection_in(own, Caller::Person(id)).await?;
        CurrentUser::find(&state.db, id, own, session_id).await?;
        return Ok((id, own, permit));
    }
    let session_id = match (session_of_link, jar.get(MEDIA_COOKIE)) {
        (Some(session_id), _) => session_id,
        (None, Some(cookie)) => {
            check_same_site(state, &parts.headers)?;
            state.refresh_key.media_key().read(cookie.value()).ok_or(AppError::NotFound)?
        }
        (None, None) => {
            return Err(ApiError::unauthenticated("unauthenticated", "sign in first").into());
        }
    };
    let workspace_id = workspace_id.ok_or(AppError::NotFound)?;
    state.limits.take(Caller::Session(session_id))?;
    let permit = state.limits.connection_in(workspace_id, Caller::Session(session_id)).await?;
    let user_id = session::find_active_in(&state.db, session_id, workspace_id).await?;
    Ok((user_id.ok_or(AppError::NotFound)?, workspace_id, permit))
}

/// Responds with a file, or the part of it that the request asks for.
async fn respond(
    state: &AppState,
    url: &FileUrl,
    file: &Visible,
    is_attachment: bool,
    request: &HeaderMap,
) -> Result<Response> {
    let size = u64::try_from(file.size).unwrap_or_default();
    let etag = format!("\"{}\"", url.hex());
    let header = |name| request.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let mut headers = HeaderMap::new();
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set(ETAG, &etag);
    for (name, value) in PROTECTED {
        set(name, value);
    }
    if is_known(request, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    set(ACCEPT_RANGES, "bytes");
    set(CONTENT_TYPE, &file.mime);
    set(CONTENT_DISPOSITION, &disposition(is_attachment, &file.name));
    let asked = header(RANGE).filter(|_| header(IF_RANGE).is_none_or(|tag| tag == etag));
    let range = match asked.and_then(|asked| parse_range(asked, size)) {
        Some(Err(())) => return Err(AppError::RangeNotSatisfiable(size)),
        Some(Ok(range)) => Some(range),
        None => None,
    };
    let status = if let Some(range) = &range {
        set(CONTENT_RANGE, &format!("bytes {}-{}/{size}", range.start, range.end - 1));
        set(CONTENT_LENGTH, &(range.end - range.start).to_string());
        StatusCode::PARTIAL_CONTENT
    } else {
        set(CONTENT_LENGTH, &size.to_string());
        StatusCode::OK
    };
    if size == 0 {
        return Ok((status, headers).into_response());
    }
    let bytes = state.files.read(url.workspace_id, &url.hash, range).await;
    let bytes = bytes.map_err(file::store_error)?;
    Ok((status, headers, Body::from_stream(bytes)).into_response())
}

/// Returns true if the client has the representation with this tag.
pub(super) fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let tags = request.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    tags.is_some_and(|tags| {
        let mut tags = tags.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
        tags.any(|tag| tag == "*" || tag == etag)
    })
}

/// Returns the part of a file that `Range` asks for (RFC 9110, section 14.2): `None` if the header has
/// another form or several parts, an error if the part lies beyond the end.
fn parse_range(header: &str, size: u64) -> Option<Result<std::ops::Range<u64>, ()>> {
    let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| {
        let text = text.trim();
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten()
    };
    let range = match (first.trim(), last.trim()) {
        ("", suffix) => size.saturating_sub(number(suffix)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    Some(if range.start < range.end { Ok(range) } else { Err(()) })
}

/// Returns `Content-Disposition` (RFC 6266), with a name in ASCII for old browsers.
fn disposition(is_attachment: bool, name: &str) -> String {
    let kind = if is_attachment { "attachment" } else { "inline" };
    let plain: String = name
        .chars()
        .map(|c| if matches!(c, ' '..='~') && !matches!(c, '"' | '\\' | '%') { c } else { '_' })
        .collect();
    let encoded = utf8_percent_encode(name, ATTRIBUTE);
    format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LinkDraft {
    /// The address of a file.
    url: String,
}

/// A link that opens a file for a while, without an access token.
#[derive(Serialize, ToSchema)]
struct Link {
    url: String,
    /// In seconds.
    #[schema(minimum = 1)]
    expires_in: u64,
}

/// Signs a link to a file, for elements such as `<img>`. The right to see the file is checked again at
/// the download.
#[utoipa::path(post, path = "/api/files/link", operation_id = "link_file",
    request_body = LinkDraft, responses((status = 200, body = Link)))]
async fn link(
    caller: CurrentUser,
    State(state): State<AppState>,
    Json(draft): Json<LinkDraft>,
) -> Result<Json<Link>> {
    let url: FileUrl = draft.url.parse().map_err(|_| AppError::NotFound)?;
    if url.workspace_id != caller.workspace_id {
        return Err(AppError::NotFound);
    }
    file::find_visible(&state.db, caller.id, &url).await?;
    let validity = LINK_VALIDITY.as_secs();
    let now = state.verifier.clock().now().timestamp();
    let expires = now.saturating_add_unsigned(validity);
    let session = caller.session_id;
    let signature = state.refresh_key.media_key().sign(session, &url.to_string(), expires);
    let url = format!("/api{url}?session={session}&expires={expires}&signature={signature}");
    Ok(Json(Link { url, expires_in: validity }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_part_of_the_file() {
        for (header, expected) in [
            ("bytes=0-0", Some(Ok(0..1))),
            ("bytes=2-", Some(Ok(2..10))),
            ("bytes=-3", Some(Ok(7..10))),
            ("bytes=-30", Some(Ok(0..10))),
            ("bytes=5-100", Some(Ok(5..10))),
            ("bytes=10-", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("bytes=a-", None),
            ("bytes=+1-2", None),
            ("lines=1-2", None),
            ("bytes=-", None),
        ] {
            assert_eq!(parse_range(header, 10), expected, "{header}");
        }
    }

    #[test]
    fn names_of_any_script_are_told_in_two_forms() {
        assert_eq!(
            disposition(true, "Menü \"1\".pdf"),
            "attachment; filename=\"Men_ _1_.pdf\"; filename*=UTF-8''Men%C3%BC%20%221%22.pdf"
        );
        assert!(disposition(false, "a.png").starts_with("inline; filename=\"a.png\";"));
    }
}
