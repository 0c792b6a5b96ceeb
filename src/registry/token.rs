//! Who we are to a registry: the answer to its challenges.
//!
//! A token is asked for what this program is about to do. What the challenge wants more is only asked for if it names
//! no other repository: a registry must not get a token that opens a stranger's.
//!
//! Source: distribution `docs/content/spec/auth/token.md`; RFC 7617.

use std::{
    collections::BTreeMap,
    io::Read,
    time::{Duration, Instant},
};

use serde::Deserialize;
use ureq::http::{Method, header};

use super::{
    challenge::{self, Challenge},
    endpoint::{Attempt, Endpoint},
    error::Error,
    options::Credentials,
};
use crate::http::{Answer, Content, Pace, Request, Url, basic};

/// What a request is about to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// `library/busybox`
    pub(super) repository: String,
    /// Not only pull.
    pub(super) push: bool,
    /// Another repository to mount from.
    pub(super) from: Option<String>,
}

impl Scope {
    pub(super) fn pull(repository: &str) -> Self {
        Self { repository: repository.to_owned(), push: false, from: None }
    }

    pub(super) fn push(repository: &str) -> Self {
        Self { push: true, ..Self::pull(repository) }
    }

    fn items(&self) -> Vec<String> {
        let own = format!("repository:{}:{}", self.repository, if self.push { "pull,push" } else { "pull" });
        let from = self.from.as_ref().map(|from| format!("repository:{from}:pull"));
        [Some(own), from].into_iter().flatten().collect()
    }

    fn key(&self) -> String {
        self.items().join(" ")
    }

    /// The items, and what else the challenge wants if that is harmless.
    fn with(&self, wanted: Option<&str>) -> Vec<String> {
        let mut items = self.items();
        let other = |item: &str| item.starts_with("repository:") || items.iter().any(|own| own == item);
        let more: Vec<String> = wanted.unwrap_or("").split_whitespace().filter(|item| !other(item)).map(str::to_owned).collect();
        items.extend(more);
        items
    }
}

/// What a registry gave us.
#[derive(Default)]
pub(super) struct Purse {
    tokens: BTreeMap<String, Token>,
    /// It asked for the password itself.
    basic: bool,
}

impl std::fmt::Debug for Purse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Purse({} tokens)", self.tokens.len())
    }
}

struct Token {
    value: String,
    until: Instant,
}

/// A token service's answer.
#[derive(Deserialize)]
struct Issued {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

impl Endpoint {
    /// The `Authorization` for a request, as far as it is known before the registry asked.
    pub(super) fn authorization(&self, scope: &Scope) -> Option<String> {
        let purse = self.purse();
        match &self.host.credentials {
            Some(Credentials::Bearer(token)) => return Some(format!("Bearer {token}")),
            Some(Credentials::Basic { username, password }) if purse.basic => return Some(basic(username, password)),
            Some(Credentials::Basic { .. }) | None => {}
        }
        let token = purse.tokens.get(&scope.key()).filter(|token| token.until > Instant::now());
        token.map(|token| format!("Bearer {}", token.value))
    }

    /// Was the password asked for?
    pub(super) fn is_basic(&self) -> bool {
        self.purse().basic
    }

    /// After a 401: gets what it asks for. `was_basic` is what [`Self::is_basic`] said before the request.
    /// `false`: there is nothing more that we could send.
    pub(super) fn answer_challenge(&self, answer: &Answer, scope: &Scope, was_basic: bool) -> Attempt<bool> {
        if matches!(self.host.credentials, Some(Credentials::Bearer(_))) {
            return Ok(false);
        }
        let headers = answer.headers().get_all(header::WWW_AUTHENTICATE).iter().take(8);
        let challenges: Vec<Challenge> = headers.filter_map(|value| value.to_str().ok()).flat_map(challenge::parse).collect();
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => Some((realm, service.as_deref(), scope.as_deref())),
            Challenge::Basic => None,
        });
        if let Some((realm, service, wanted)) = bearer {
            let token = self.fetch_token(realm, service, &scope.with(wanted))?;
            self.purse().tokens.insert(scope.key(), token);
            return Ok(true);
        }
        let can = challenges.contains(&Challenge::Basic) && self.host.credentials.is_some();
        self.purse().basic |= can;
        Ok(can && !was_basic)
    }

    fn fetch_token(&self, realm: &str, service: Option<&str>, scopes: &[String]) -> Attempt<Token> {
        const LARGEST: u64 = 1024 * 1024;
        let what = "a token";
        let realm = Url::parse(realm).map_err(|odd| self.protocol(&format!("the URL of its token service: {odd}")))?;
        self.may_go(&realm, "its token service")?;
        let url = service.map_or(realm.clone(), |service| realm.with("service", service));
        let url = scopes.iter().fold(url, |url, scope| url.with("scope", scope));
        let mut headers = vec![(header::ACCEPT, "application/json".to_owned())];
        if let Some(Credentials::Basic { username, password }) = &self.host.credentials {
            headers.push((header::AUTHORIZATION, basic(username, password)));
        }
        let request = Request { method: Method::GET, url: &url, headers: &headers, content: Content::None, pace: Pace::Small };
        let answer = self.send(request)?;
        if !answer.status().is_success() {
            return Err(self.refusal(answer, what));
        }
        let mut bytes = Vec::new();
        let mut body = answer.into_body().into_reader().take(LARGEST + 1);
        body.read_to_end(&mut bytes).map_err(|error| self.lost(&error))?;
        let issued: Issued = match serde_json::from_slice(&bytes) {
            Ok(issued) if bytes.len() as u64 <= LARGEST => issued,
            Ok(_) | Err(_) => return Err(self.protocol("its token service does not answer with a token").into()),
        };
        let value = if issued.token.is_empty() { issued.access_token } else { issued.token };
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(self.protocol("its token service does not answer with a token").into());
        }
        // The specification's default and least is 60 seconds; a little less, for the way.
        let seconds = issued.expires_in.clamp(60, 24 * 3600) - 5;
        Ok(Token { value, until: Instant::now() + Duration::from_secs(seconds) })
    }

    /// The error of a status 401 that stays.
    pub(super) fn unauthorized(&self, what: &str, detail: &str) -> Error {
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        Error::Unauthorized { registry: self.registry.clone(), what: what.to_owned(), detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_gets_no_token_for_another_repository() {
        let scope = Scope { from: Some("base".into()), ..Scope::push("app") };
        let wanted = Some("repository:app:pull,push repository:victim:delete aws registry:catalog:*");
        let expected = ["repository:app:pull,push", "repository:base:pull", "aws", "registry:catalog:*"];
        assert_eq!(scope.with(wanted), expected);
    }
}
