//! Refuses query parameters that a route does not have. Otherwise a client with a wrong name for
//! the cursor would always get the first page.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{OpenApi, RefOr};

use crate::error::{AppError, Result};

/// The query parameters of each route in the OpenAPI document, by path and method. Clones share
/// them.
#[derive(Debug, Clone)]
pub(crate) struct KnownParameters(Arc<HashMap<String, HashMap<Method, RouteParameters>>>);

#[derive(Debug)]
struct RouteParameters {
    parameters: HashSet<String>,
    /// True if the route needs no access token.
    is_open: bool,
}

impl KnownParameters {
    pub(crate) fn of(document: &OpenApi) -> Self {
        let routes = document.paths.paths.iter().map(|(path, item)| {
            let methods = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            let methods = methods.into_iter().filter_map(|(method, operation)| {
                Some((method, RouteParameters::of(path, operation.as_ref()?)))
            });
            (path.clone(), methods.collect())
        });
        Self(Arc::new(routes.collect()))
    }

    /// Refuses a request with a parameter that its route does not have. A caller
    /// without a valid token gets this error only on routes that need no token.
    pub(crate) fn check(&self, request: &Request, is_signed_in: bool) -> Result<()> {
        let Some(name) = self.find_unknown(request, is_signed_in) else { return Ok(()) };
        let name: String = name.chars().take(64).collect();
        Err(AppError::invalid("query", &format!("has no parameter {name:?} here")))
    }

    fn find_unknown(&self, request: &Request, is_signed_in: bool) -> Option<String> {
        let query = request.uri().query().filter(|query| !query.is_empty())?;
        let route = request.extensions().get::<MatchedPath>()?;
        let method =
            if *request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let known = self.0.get(route.as_str())?.get(method)?;
        if !(is_signed_in || known.is_open) {
            return None;
        }
        let mut names = url::form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
        names.find(|name| !known.parameters.contains(name.as_ref())).map(Into::into)
    }
}

impl RouteParameters {
    fn of(path: &str, operation: &Operation) -> Self {
        let names = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
            RefOr::T(parameter) => Some(&parameter.name),
            RefOr::Ref(_) => None,
        });
        let is_in_path = |name: &&String| path.contains(&format!("{{{name}}}"));
        let parameters = names.filter(|name| !is_in_path(name)).cloned().collect();
        Self { parameters, is_open: operation.security.is_some() }
    }
}
