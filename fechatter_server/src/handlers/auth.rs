//! Sign-up, sign-in, refresh and logout.

use std::iter;

use axum::extract::DefaultBodyLimit;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::AppendHeaders;
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use fechatter_core::SessionId;
use fechatter_core::http::ApiError;
use fechatter_core::token::{self, AuthUser};
use fechatter_core::user::User;
use fechatter_core::workspace::Workspace;
use fechatter_core::{UserId, WorkspaceId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{AppError, ErrorKind, Result};
use crate::models::account::device::Device;
use crate::models::session::authentication::Authentication;
use crate::models::session::current_user::CurrentUser;
use crate::models::session::password_reset::{self, PasswordReset};
use crate::models::session::{self, Selection, Session};
use crate::models::sign_in::{self, SignIn, SignUp, SignedIn};
use crate::services::device_token;
use crate::services::limits::Caller;
use crate::services::refresh_token::RefreshToken;
use crate::state::AppState;
use crate::utils::json::Json;
use crate::utils::query::{OneId, Params};

/// The largest body of a sign-up or sign-in, in bytes.
const MAX_SIGN_IN_BODY: usize = 16 * 1024;

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    use ErrorKind as E;
    let sign_up_errors = [
        E::WeakPassword,
        E::EmailTaken,
        E::InviteRequired,
        E::InviteInvalid,
        E::SetupCodeRequired,
        E::WorkspaceCreationClosed,
        E::Suspended,
        E::WorkspaceSuspended,
        E::LimitReached,
    ];
    let limit = DefaultBodyLimit::max(MAX_SIGN_IN_BODY);
    OpenApiRouter::new()
        .routes(routes!(sign_up).layer(limit).errors(&sign_up_errors))
        .routes(routes!(sign_in).layer(limit).errors(&[
            E::InvalidCredentials,
            E::Suspended,
            E::WorkspaceSuspended,
        ]))
        .routes(routes!(refresh).errors(&[
            E::RefreshMissing,
            E::RefreshInvalid,
            E::RefreshReused,
            E::CrossSite,
            E::Suspended,
            E::WorkspaceSuspended,
            E::NotFound,
        ]))
        .routes(routes!(log_out).errors(&[E::SessionEnded, E::RefreshInvalid, E::CrossSite]))
        .routes(routes!(log_out_all))
        .routes(routes!(log_out_all_as_before))
        .routes(routes!(reset_password).layer(limit).errors(&[E::TokenInvalid, E::WeakPassword]))
}

const COOKIE: &str = "refresh_token";
/// Opens files and avatars for elements that send no access token, and nothing else.
pub(super) const MEDIA_COOKIE: &str = "media";
const DEVICE_COOKIE: &str = "device";
/// The maximum number of accounts that know a browser as their device.
const KNOWN_ACCOUNTS: usize = 5;

/// The header that sets the device's cookie, besides the session's cookie.
type NewDevice = AppendHeaders<[(HeaderName, String); 1]>;

/// The signed-in person, with their tokens.
#[derive(Serialize, ToSchema)]
pub(super) struct AuthResponse {
    access_token: String,
    /// The lifetime of the access token in seconds.
    #[schema(minimum = 1)]
    expires_in: i64,
    /// Null if the refresh token of the session has not changed.
    refresh_token: Option<String>,
    user: User,
    workspace: Workspace,
    session_id: SessionId,
    /// For the next sign-in on this device; only in the response that opens a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    device_token: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RefreshParams {
    /// The workspace of the new access token. The default is the last used workspace.
    #[param(value_type = Option<i64>, minimum = 1)]
    workspace_id: Option<OneId<WorkspaceId>>,
}

#[derive(Serialize, ToSchema)]
struct Said {
    message: &'static str,
}

/// Creates an account, in a new workspace or an existing one.
#[utoipa::path(post, path = "/api/signup", operation_id = "sign_up", security(()), request_body = SignUp,
    responses((status = 201, body = AuthResponse)))]
async fn sign_up(
    State(state): State<AppState>,
    State(auth): State<Authentication>,
    device: Device,
    jar: CookieJar,
    Json(request): Json<SignUp>,
) -> Result<(StatusCode, CookieJar, NewDevice, Json<AuthResponse>)> {
    let signed_in = sign_in::sign_up(&auth, request, &device).await?;
    let (jar, device, body) = with_cookies(&state, jar, signed_in)?;
    Ok((StatusCode::CREATED, jar, device, body))
}

/// Opens a session.
#[utoipa::path(post, path = "/api/signin", operation_id = "sign_in", security(()), request_body = SignIn,
    responses((status = 200, body = AuthResponse)))]
async fn sign_in(
    State(state): State<AppState>,
    State(auth): State<Authentication>,
    device: Device,
    jar: CookieJar,
    Json(request): Json<SignIn>,
) -> Result<(CookieJar, NewDevice, Json<AuthResponse>)> {
    let texts = cookie_device_tokens(&jar).chain(request.device_token.as_deref());
    let tokens: Vec<_> =
        texts.take(KNOWN_ACCOUNTS + 1).filter_map(|text| auth.device_key.read(text)).collect();
    let signed_in = sign_in::sign_in(&auth, request, &device, &tokens).await?;
    with_cookies(&state, jar, signed_in)
}

/// Exchanges a refresh token, from the cookie or else as bearer, for new tokens.
#[utoipa::path(post, path = "/api/refresh", operation_id = "refresh", security(()), params(RefreshParams),
    responses((status = 200, body = AuthResponse)))]
async fn refresh(
    State(state): State<AppState>,
    device: Device,
    jar: CookieJar,
    Params(params): Params<RefreshParams>,
    parts: Parts,
) -> Result<(CookieJar, Json<AuthResponse>)> {
    let token = refresh_token(&state, &jar, &parts)?;
    let workspace_id = params.workspace_id.map(|OneId(id)| id);
    let stores = (&state.db, &state.log);
    let session = session::refresh(stores, &state.limits, &device, token, workspace_id).await?;
    with_cookie(&state, jar, session)
}

/// Ends the session of the access token, or of the refresh token in cookie or bearer.
#[utoipa::path(post, path = "/api/logout", operation_id = "log_out", security(()),
    responses((status = 200, body = Said)))]
async fn log_out(
    State(state): State<AppState>,
    device: Device,
    jar: CookieJar,
    parts: Parts,
) -> Result<(CookieJar, Json<Said>)> {
    let (owner, session_id) = session_to_end(&state, &device, &jar, &parts).await?;
    if let Some((workspace_id, user_id)) = owner {
        let _share = state.limits.connection_in(workspace_id, Caller::Person(user_id)).await?;
        session::revoke(&state.db, &state.log, user_id, Selection::One(session_id)).await?;
    }
    Ok((without_cookies(&state, jar), Json(Said { message: "Logged out successfully" })))
}

/// Ends all sessions of the account.
#[utoipa::path(post, path = "/api/logout-all", operation_id = "log_out_all",
    responses((status = 200, body = Said)))]
async fn log_out_all(
    user: CurrentUser,
    State(state): State<AppState>,
    jar: CookieJar,
) -> Result<(CookieJar, Json<Said>)> {
    session::revoke(&state.db, &state.log, user.id, Selection::All).await?;
    let message = "Logged out from all sessions successfully";
    Ok((without_cookies(&state, jar), Json(Said { message })))
}

/// Ends all sessions of the account, by the name that this call had in the earlier Fechatter.
#[utoipa::path(post, path = "/api/logout_all", operation_id = "log_out_all_as_before",
    responses((status = 200, body = Said)))]
async fn log_out_all_as_before(
    user: CurrentUser,
    state: State<AppState>,
    jar: CookieJar,
) -> Result<(CookieJar, Json<Said>)> {
    log_out_all(user, state, jar).await
}

/// Sets a new password with the token of a reset link, and ends all sessions of the account.
#[utoipa::path(post, path = "/api/password-reset/confirm", operation_id = "reset_password", security(()),
    request_body = PasswordReset, responses((status = 204)))]
async fn reset_password(
    State(auth): State<Authentication>,
    device: Device,
    Json(request): Json<PasswordReset>,
) -> Result<StatusCode> {
    password_reset::confirm(&auth, &device, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Responds with the tokens of a new session and of its device.
fn with_cookies(
    state: &AppState,
    jar: CookieJar,
    SignedIn { session, device_token }: SignedIn,
) -> Result<(CookieJar, NewDevice, Json<AuthResponse>)> {
    let device = device_cookie(state, &jar, &device_token).to_string();
    let (jar, Json(mut body)) = with_cookie(state, jar, session)?;
    body.device_token = Some(device_token);
    Ok((jar, AppendHeaders([(SET_COOKIE, device)]), Json(body)))
}

/// Responds with the tokens of a session, including its refresh token.
fn with_cookie(
    state: &AppState,
    jar: CookieJar,
    session: Session,
) -> Result<(CookieJar, Json<AuthResponse>)> {
    let refresh_token = state.refresh_key.write(session.token);
    let media_token = state.refresh_key.media_key().write(session.token.session_id);
    let jar = jar.add(cookie(state, COOKIE, refresh_token.clone())).add(cookie(
        state,
        MEDIA_COOKIE,
        media_token,
    ));
    Ok((jar, Json(respond(state, session, Some(refresh_token))?)))
}

pub(super) fn respond(
    state: &AppState,
    session: Session,
    refresh_token: Option<String>,
) -> Result<AuthResponse> {
    Ok(AuthResponse {
        access_token: state.signer.sign(&session.user, session.token.session_id)?,
        expires_in: token::LIFETIME,
        refresh_token,
        session_id: session.token.session_id,
        device_token: None,
        user: session.user,
        workspace: session.workspace,
    })
}

fn cookie(state: &AppState, name: &'static str, value: String) -> Cookie<'static> {
    Cookie::build((name, value))
        .path("/api")
        .http_only(true)
        .secure(state.config.signing.secure_cookie)
        .same_site(SameSite::Strict)
        .max_age(time::Duration::days(30))
        .build()
}

/// Builds the device's cookie: the newest token, and those of other accounts on the device.
fn device_cookie(state: &AppState, jar: &CookieJar, newest: &str) -> Cookie<'static> {
    let key = state.refresh_key.device_key();
    let account = key.read(newest).map(|token| token.user_id);
    let others = cookie_device_tokens(jar)
        .filter(|text| key.read(text).is_some_and(|token| Some(token.user_id) != account));
    let tokens: Vec<_> = iter::once(newest).chain(others).take(KNOWN_ACCOUNTS).collect();
    Cookie::build((DEVICE_COOKIE, tokens.join(".")))
        .path("/api/signin")
        .http_only(true)
        .secure(state.config.signing.secure_cookie)
        .same_site(SameSite::Strict)
        .max_age(time::Duration::days(device_token::DAYS))
        .build()
}

/// Returns the device tokens in the cookie, at most as many as the server writes.
fn cookie_device_tokens(jar: &CookieJar) -> impl Iterator<Item = &str> {
    let cookie = jar.get(DEVICE_COOKIE);
    cookie.into_iter().flat_map(|cookie| cookie.value().split('.')).take(KNOWN_ACCOUNTS)
}

/// Removes the cookies of a session.
pub(super) fn without_cookies(state: &AppState, jar: CookieJar) -> CookieJar {
    [COOKIE, MEDIA_COOKIE].into_iter().fold(jar, |jar, name| {
        let mut cookie = cookie(state, name, String::new());
        cookie.make_removal();
        jar.add(cookie)
    })
}

/// Returns the refresh token of the cookie, if the request comes from an allowed origin. Without
/// the cookie, returns that of the bearer header.
fn refresh_token(state: &AppState, jar: &CookieJar, parts: &Parts) -> Result<RefreshToken> {
    let token = match jar.get(COOKIE) {
        Some(cookie) => {
            check_same_site(state, &parts.headers)?;
            cookie.value()
        }
        None => token::bearer(&parts.headers).ok_or(AppError::RefreshMissing)?,
    };
    state.refresh_key.read(token).ok_or(AppError::RefreshInvalid)
}

/// Returns the session that a logout ends, with its workspace and person, or none for a session
/// that does not exist or has been revoked.
async fn session_to_end(
    state: &AppState,
    device: &Device,
    jar: &CookieJar,
    parts: &Parts,
) -> Result<(Option<(WorkspaceId, UserId)>, SessionId)> {
    let bearer = token::bearer(&parts.headers);
    let access = bearer.map(|token| state.verifier.verify(token));
    if let Some(Ok(AuthUser { id, workspace_id, session_id, .. })) = access {
        return Ok((Some((workspace_id, id)), session_id));
    }
    let refresh = match (bearer.and_then(|token| state.refresh_key.read(token)), access) {
        (Some(token), _) => token,
        (None, Some(Err(error))) if jar.get(COOKIE).is_none() => {
            return Err(ApiError::from(error).into());
        }
        (None, _) if jar.get(COOKIE).is_some() => refresh_token(state, jar, parts)?,
        (None, _) => {
            return Err(ApiError::unauthenticated("unauthenticated", "sign in first").into());
        }
    };
    state.limits.take(Caller::Session(refresh.session_id))?;
    let share =
        state.limits.connection_for_authentication(Caller::Address(device.network())).await?;
    let owner = session::find_owner(&state.db, refresh).await?;
    drop(share);
    if let Some((_, user_id)) = owner {
        state.limits.take(Caller::Person(user_id))?;
    }
    Ok((owner, refresh.session_id))
}

/// Refuses a request that a browser sends for another site. The cookie is `SameSite=Strict`
/// already; this protects browsers and sibling domains for which that is not enough.
pub(super) fn check_same_site(state: &AppState, headers: &HeaderMap) -> Result<()> {
    let header = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_origin_allowed = header("origin").is_none_or(|origin| {
        origin == state.config.server.public_url
            || state.config.http.allowed_origins.iter().any(|allowed| allowed == origin)
    });
    let is_allowed_cross_site = header("origin").is_some() && is_origin_allowed;
    let is_site_allowed = header("sec-fetch-site")
        .is_none_or(|site| matches!(site, "same-origin" | "none") || is_allowed_cross_site);
    if is_site_allowed && is_origin_allowed { Ok(()) } else { Err(AppError::CrossSite) }
}
