//! What a hub's answers mean for who asked.

use std::error::Error as _;

use reqwest::StatusCode;

use crate::HubError;

/// What was asked of which hub.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) endpoint: String,
    pub(super) what: String,
}

impl Asked {
    /// Why there is no answer, or not the one that was wanted.
    pub(super) fn explain(&self, error: &reqwest::Error) -> HubError {
        match error.status() {
            Some(status) => self.refused(status),
            None if error.is_builder() || error.is_redirect() => self.not_a_hub(in_full(error)),
            None => self.no_network(in_full(error)),
        }
    }

    /// What a status that is no success means.
    pub(super) fn refused(&self, status: StatusCode) -> HubError {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                HubError::Denied { what: self.what.clone(), status: status.as_u16() }
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                HubError::NotOnHub { endpoint: self.endpoint.clone(), what: self.what.clone() }
            }
            StatusCode::TOO_MANY_REQUESTS => {
                self.no_network(format!("{} has had too many requests, so try again later", self.endpoint))
            }
            status if status.is_server_error() => {
                self.no_network(format!("{} answered {status}", self.endpoint))
            }
            status => self.not_a_hub(format!("it answered {status}")),
        }
    }

    pub(super) fn no_network(&self, detail: String) -> HubError {
        HubError::NoNetwork { what: self.what.clone(), detail }
    }

    pub(super) fn not_a_hub(&self, detail: String) -> HubError {
        HubError::NotAHub { endpoint: self.endpoint.clone(), detail }
    }
}

/// What happened, down to the cause: the outermost error names only the address.
fn in_full(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
