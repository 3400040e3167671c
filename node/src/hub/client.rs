//! What is asked of the hub over HTTP: a repository's description, what a file is, and a file's bytes.

use super::{Config, HubError, Model, hash::Hash, model::is_commit};
use serde::Deserialize;
use std::{thread, time::Duration};
use ureq::{
    Agent, Body, RequestBuilder,
    config::RedirectAuthHeaders,
    http::{Response, Uri, header},
    typestate::WithoutBody,
};

/// So many attempts in a row may bring nothing.
pub(super) const ATTEMPTS: usize = 3;
/// The longest chain of redirects within the hub.
const REDIRECTS_MAX: usize = 5;
/// The largest description of a repository.
const DESCRIPTION_BYTES_MAX: u64 = 16 << 20;
/// The largest file.
const FILE_BYTES_MAX: u64 = 1 << 40;
/// How long a server may take to answer, or to send any more bytes.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Client<'a> {
    pub(super) config: &'a Config,
    pub(super) model: &'a Model,
    agent: Agent,
}

/// What a repository is at a revision.
#[derive(Deserialize)]
pub(super) struct Description {
    /// The commit.
    pub(super) sha: String,
    /// Its files; some mirrors don't list them.
    siblings: Option<Vec<Sibling>>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Description {
    /// Whether the repository may have the file.
    pub(super) fn may_have(&self, file: &str) -> bool {
        self.siblings.as_ref().is_none_or(|siblings| siblings.iter().any(|sibling| sibling.rfilename == file))
    }
}

/// A file of a repository.
pub(super) struct Remote {
    pub(super) file: String,
    pub(super) url: String,
    pub(super) size: u64,
    pub(super) checksum: String,
}

impl<'a> Client<'a> {
    pub(super) fn new(config: &'a Config, model: &'a Model) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // Large files come from other hosts, which must not learn the token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("heterotune/", env!("CARGO_PKG_VERSION")))
            // Sizes and ranges are those of the file itself.
            .accept_encoding("identity")
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .build()
            .into();
        Self { config, model, agent }
    }

    /// What the repository is now.
    pub(super) fn describe(&self) -> Result<Description, HubError> {
        let url = format!("{}/api/{}", self.config.endpoint, self.model.repo().api_url());
        let description: Description = self.again_and_again(|| {
            let mut response = self.send(&url, self.agent.get(&url))?;
            let body = response.body_mut().with_config().limit(DESCRIPTION_BYTES_MAX).read_json();
            body.map_err(|error| match error {
                ureq::Error::Json(error) => answer(&url, format!("describes no model ({error})")),
                error => unreachable(&url, &error),
            })
        })?;
        if !is_commit(&description.sha) {
            return Err(answer(&url, format!("names \"{}\" as the commit", description.sha)));
        }
        Ok(description)
    }

    /// What a file of a commit is; none if there is no such file.
    pub(super) fn file(&self, commit: &str, file: &str) -> Result<Option<Remote>, HubError> {
        let url = format!("{}/{}/resolve/{commit}/{file}", self.config.endpoint, self.model.repo().url());
        let mut at = url.clone();
        for _ in 0..REDIRECTS_MAX {
            let sent = self.again_and_again(|| self.send(&at, self.agent.head(&at).config().max_redirects(0).build()));
            let response = match sent {
                Err(HubError::Absent { .. }) => return Ok(None),
                sent => sent?,
            };
            match next(&at, &response) {
                Some(next) => at = next,
                None => {
                    let (size, checksum) = size_and_checksum(&response).map_err(|problem| answer(&url, problem))?;
                    return Ok(Some(Remote { file: file.into(), url, size, checksum }));
                }
            }
        }
        Err(answer(&url, "leads in circles"))
    }

    /// The bytes of a file from `start` on, or all of them: the answer's status says which. One attempt.
    pub(super) fn bytes(&self, remote: &Remote, start: u64) -> Result<Response<Body>, HubError> {
        let mut request = self.agent.get(&remote.url);
        if start > 0 {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        let response = self.send(&remote.url, request)?;
        let range = header_text(&response, "content-range").unwrap_or_default();
        if response.status() == 206 && !range.starts_with(&format!("bytes {start}-")) {
            return Err(answer(
                &remote.url,
                format!("has the range \"{range}\" where bytes from {start} on were asked for"),
            ));
        }
        Ok(response)
    }

    fn send(&self, url: &str, mut request: RequestBuilder<WithoutBody>) -> Result<Response<Body>, HubError> {
        if let Some(token) = &self.config.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = request.call().map_err(|error| unreachable(url, &error))?;
        let (model, endpoint) = (self.model.clone(), self.config.endpoint.clone());
        match response.status().as_u16() {
            200 | 206 | 300..=399 => Ok(response),
            status @ (401 | 403) => Err(HubError::Forbidden { model, endpoint, status }),
            404 => Err(HubError::Absent { model, endpoint }),
            status @ (408 | 429 | 500..) => Err(unreachable(url, &format!("status {status}"))),
            status => Err(answer(url, format!("has status {status}"))),
        }
    }

    fn again_and_again<T>(&self, attempt: impl Fn() -> Result<T, HubError>) -> Result<T, HubError> {
        for _ in 1..ATTEMPTS {
            match attempt() {
                Err(error) if error.passes() => thread::sleep(self.config.pause),
                result => return result,
            }
        }
        attempt()
    }
}

/// Where an answer leads within the hub. An answer that says what a large file is leads elsewhere, to its bytes.
fn next(url: &str, response: &Response<Body>) -> Option<String> {
    if !response.status().is_redirection() || response.headers().contains_key("x-linked-etag") {
        return None;
    }
    let (here, there) = (url.parse::<Uri>().ok()?, header_text(response, "location")?.parse::<Uri>().ok()?);
    if there.authority().is_some_and(|authority| Some(authority) != here.authority()) {
        return None;
    }
    Some(format!("{}://{}{}", here.scheme()?, here.authority()?, there.path_and_query()?))
}

fn size_and_checksum(response: &Response<Body>) -> Result<(u64, String), String> {
    // The size and tag of an answer that leads elsewhere are its own, not the file's.
    let own = |name: &str| header_text(response, name).filter(|_| !response.status().is_redirection());
    let tag = header_text(response, "x-linked-etag").or_else(|| own("etag")).unwrap_or_default();
    let checksum = tag.trim_start_matches("W/").trim_matches('"');
    if !Hash::is_checksum(checksum) {
        return Err(format!("has no checksum (its ETag is \"{tag}\")"));
    }
    let size = header_text(response, "x-linked-size").or_else(|| own("content-length"));
    match size.and_then(|size| size.parse().ok()) {
        Some(size @ 0..=FILE_BYTES_MAX) => Ok((size, checksum.into())),
        _ => Err(format!("gives no size that a file can have ({})", size.unwrap_or("none"))),
    }
}

fn header_text<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

pub(super) fn unreachable(url: &str, problem: &dyn std::fmt::Display) -> HubError {
    HubError::Unreachable { url: url.into(), problem: problem.to_string() }
}

fn answer(url: &str, problem: impl std::fmt::Display) -> HubError {
    HubError::Answer { url: url.into(), problem: format!("the answer {problem}") }
}
