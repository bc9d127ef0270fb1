//! Takes what gives access out of texts before anybody sees them.
//!
//! Operation URLs are signed, disk export URLs are keys, proxies echo headers. Texts of strangers pass through here on
//! their way into errors and logs.

/// The longest text of a stranger that we repeat, in characters.
const LENGTH_MAX: usize = 800;

/// The shortest run of token characters after `eyJ` that is taken for a token.
const TOKEN_MIN: usize = 16;

/// Fields, parameters and headers whose value is a secret.
const SECRET_NAMES: [&str; 11] = [
    "access_token",
    "accesssas",
    "authorization",
    "bearer",
    "client_assertion",
    "client_secret",
    "id_token",
    "password",
    "refresh_token",
    "s",
    "sig",
];

/// The text without secrets, cut to a sane length.
pub(super) fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(LENGTH_MAX));
    let mut after_secret_name = false;
    for word in text.split_inclusive(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '\\' | ',')) {
        let body =
            word.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '\\' | ','));
        let end = &word[body.len()..];
        if body.is_empty() || body.chars().all(|c| matches!(c, ':' | '=')) {
            clean.push_str(word);
            continue;
        }
        let is_bearer = body.eq_ignore_ascii_case("bearer");
        if after_secret_name && !is_bearer {
            clean.push('…');
        } else {
            clean.push_str(&redact_word(body));
        }
        clean.push_str(end);
        let name = body.trim_end_matches([':', '=']).trim_start_matches(['{', '(', '[']);
        // `s` and `sig` are words of English or of nothing when no value is bound to them.
        after_secret_name = SECRET_NAMES.iter().any(|secret| name.eq_ignore_ascii_case(secret))
            && (name.len() > 3 || body.ends_with([':', '=']));
    }
    if clean.chars().count() > LENGTH_MAX {
        clean = clean.chars().take(LENGTH_MAX).chain(['…']).collect();
    }
    clean
}

/// A word without blanks and quotes: no query of a URL, no value of a secret parameter, no token.
fn redact_word(word: &str) -> String {
    if let Some((before, query)) = word.split_once('?')
        && query.contains('=')
    {
        return format!("{before}?…");
    }
    let parts: Vec<String> = word
        .split('&')
        .map(|part| match part.split_once('=') {
            Some((name, value)) if !value.is_empty() && (word.contains('&') || is_secret(name)) => format!("{name}=…"),
            Some(_) | None => redact_token(part),
        })
        .collect();
    parts.join("&")
}

fn is_secret(name: &str) -> bool {
    let name = name.rsplit(['{', '(', '[', ';']).next().unwrap_or(name);
    SECRET_NAMES.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

/// JSON web tokens begin with `eyJ`, the base64 of `{"`.
fn redact_token(part: &str) -> String {
    let Some(start) = part.find("eyJ") else { return part.to_owned() };
    let token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '/' | '=');
    let length = part[start..].chars().take_while(|c| token(*c)).count();
    if length < TOKEN_MIN {
        return part.to_owned();
    }
    format!("{}…{}", &part[..start], redact_token(&part[start + length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_access_is_taken_out_and_the_rest_stays() {
        let rows = [
            ("disk d is attached to VM v", "disk d is attached to VM v"),
            (
                "GET https://management.azure.com/subscriptions/1/op?api-version=1&t=2&c=MII&s=U-Lpx failed",
                "GET https://management.azure.com/subscriptions/1/op?… failed",
            ),
            ("t=63&c=MIIH&s=U-LpxAqZ", "t=…&c=…&s=…"),
            ("sig=abc%3D", "sig=…"),
            ("authorization: Bearer abc.def", "authorization: Bearer …"),
            ("Bearer abc.def, was expired", "Bearer …, was expired"),
            ("the token eyJ0eXAiOiJKV1QiLCJhbGciOi.J9.x-_ was bad", "the token … was bad"),
            (r#"{"access_token":"opaque"}"#, r#"{"access_token":"…"}"#),
            ("client_secret=hush", "client_secret=…"),
            ("capacity=3 is more than quota=2", "capacity=3 is more than quota=2"),
            ("Alice's disk", "Alice's disk"),
        ];
        for (text, expected) in rows {
            assert_eq!(redact(text), expected);
        }
    }

    #[test]
    fn a_page_of_html_does_not_fill_the_log() {
        assert!(redact(&"long ".repeat(1000)).chars().count() <= LENGTH_MAX + 1);
    }
}
