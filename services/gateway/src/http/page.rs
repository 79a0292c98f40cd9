//! `GET /`: the live page, one file that loads nothing else.

use axum::{
    http::header,
    response::{Html, IntoResponse},
};
use uuid::Uuid;

const PAGE: &str = include_str!("page.html");
/// Where the page's own script and style carry the nonce.
const NONCE_PLACE: &str = "{{nonce}}";

/// The page. What peers say of themselves is shown on it, so a browser is told to run only the page's own script:
/// each answer has a nonce that nobody knew before.
pub(super) async fn show() -> impl IntoResponse {
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers.map(|(name, value)| (name, value.to_owned())), Html(PAGE.replace(NONCE_PLACE, &nonce)))
}

#[cfg(test)]
mod tests {
    use axum::{body::to_bytes, response::Response};

    use super::*;

    async fn parts(response: Response) -> (String, String) {
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text").to_owned();
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (policy, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn only_the_pages_own_script_may_run_and_each_answer_has_another_nonce() {
        let (policy, page) = parts(show().await.into_response()).await;
        let nonce = policy.split("script-src 'nonce-").nth(1).and_then(|rest| rest.split('\'').next());
        let nonce = nonce.expect("a nonce");
        assert!(page.contains(&format!("<script type=\"module\" nonce=\"{nonce}\">")), "{policy}");
        assert!(page.contains(&format!("<style nonce=\"{nonce}\">")) && !page.contains(NONCE_PLACE));
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_ne!(policy, parts(show().await.into_response()).await.0);
    }

    #[test]
    fn the_page_loads_nothing_and_never_makes_markup_of_texts() {
        let forbidden = [
            "<script src",
            "<link rel=\"stylesheet",
            "@import",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "eval(",
        ];
        let found: Vec<_> = forbidden.iter().filter(|part| PAGE.contains(**part)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}
