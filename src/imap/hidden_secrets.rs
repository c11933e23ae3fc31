//! Secrets that were sent to a server, taken out of whatever it says for people: some servers repeat what they did not
//! understand.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

use super::{
    parse::MAX_TEXT,
    response::{Response, ResponseCode, StatusLine, UntaggedResponse},
};

/// What stands in a secret's place.
const PLACEHOLDER: &str = "[hidden]";
/// So many characters of a secret at the end of a text that was cut are hidden, too.
const TELLING: usize = 4;

/// Secrets as a server may repeat them.
#[derive(Clone, Default)]
pub(crate) struct HiddenSecrets(Vec<Zeroizing<String>>);

impl std::fmt::Debug for HiddenSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HiddenSecrets(..)")
    }
}

impl HiddenSecrets {
    /// These secrets: as text, in the form of a quoted string (RFC 9051, section 4.3) and in base64. Texts of responses
    /// hold no control characters, so that the forms hold none either.
    pub(crate) fn new(secrets: &[&[u8]]) -> Self {
        let mut forms = Vec::new();
        for secret in secrets {
            let text = Zeroizing::new(String::from_utf8_lossy(secret).into_owned());
            let spaced: Zeroizing<String> =
                Zeroizing::new(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect());
            for text in [spaced.as_str(), spaced.trim()] {
                forms.push(Zeroizing::new(text.replace('\\', "\\\\").replace('"', "\\\"")));
                forms.push(Zeroizing::new(text.to_owned()));
            }
            forms.push(Zeroizing::new(BASE64.encode(secret)));
        }
        forms.retain(|form| !form.trim().is_empty());
        // The longest first: a shorter one may be a part of it.
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        forms.dedup();
        Self(forms)
    }

    /// Takes the secrets out of what `response` says for people. What has a meaning for programs stays as it is.
    pub(crate) fn hide_in(&self, response: &mut Response) {
        if self.0.is_empty() {
            return;
        }
        match response {
            Response::Continue(text) => self.hide(text),
            Response::Tagged { line, .. } | Response::Untagged(UntaggedResponse::Status(line)) => {
                self.hide_in_line(line);
            }
            Response::Untagged(UntaggedResponse::Id(pairs)) => {
                for (name, value) in pairs {
                    self.hide(name);
                    if let Some(value) = value {
                        self.hide(value);
                    }
                }
            }
            Response::Untagged(_) => {}
        }
    }

    fn hide_in_line(&self, line: &mut StatusLine) {
        self.hide(&mut line.text);
        if let Some(ResponseCode::Other(code)) = &mut line.code {
            // It is in upper case.
            if self.0.iter().any(|form| code.contains(&form.to_uppercase())) {
                PLACEHOLDER.clone_into(code);
            }
        }
    }

    fn hide(&self, text: &mut String) {
        let was_cut = text.chars().count() >= MAX_TEXT;
        for form in &self.0 {
            if text.contains(form.as_str()) {
                *text = text.replace(form.as_str(), PLACEHOLDER);
            }
            // A text that was cut may end in the middle of it.
            if was_cut {
                let ends: Vec<usize> = form.char_indices().skip(TELLING).map(|(at, _)| at).collect();
                let begun = ends.iter().rev().filter_map(|end| form.get(..*end)).find(|begun| text.ends_with(begun));
                if let Some(begun) = begun {
                    text.truncate(text.len() - begun.len());
                    text.push_str(PLACEHOLDER);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imap::parse::parse;

    fn said(secrets: &HiddenSecrets, line: &str) -> String {
        let mut response = parse(format!("{line}\r\n").into()).unwrap();
        secrets.hide_in(&mut response);
        format!("{response:?}")
    }

    #[test]
    fn a_password_that_a_server_repeats_is_hidden_in_each_of_its_forms() {
        let secrets = HiddenSecrets::new(&[b"s3cr\"et\t1", b"\0alice\0s3cr\"et\t1"]);
        let encoded = BASE64.encode(b"\0alice\0s3cr\"et\t1");
        for line in [
            "a1 NO bad password s3cr\"et\t1 for alice".to_owned(),
            "a1 BAD LOGIN \"alice\" \"s3cr\\\"et 1\" not understood".to_owned(),
            format!("* BAD unknown command {encoded}"),
            format!("+ {encoded}"),
            "* ID (\"name\" \"s3cr\\\"et\t1\")".to_owned(),
            format!("a1 NO {}s3cr\"et\t1", "x".repeat(494)),
        ] {
            let said = said(&secrets, &line);
            assert!(said.contains("[hidden]") && !said.contains("s3cr") && !said.contains(&encoded[..12]), "{said}");
        }
    }

    #[test]
    fn what_programs_read_stays_as_it_is() {
        let secrets = HiddenSecrets::new(&[b"INBOX", b"Seen"]);
        let list = "* LIST (\\HasNoChildren) \"/\" INBOX";
        assert_eq!(said(&secrets, list), said(&HiddenSecrets::default(), list));
        let fetch = "* 1 FETCH (UID 7 FLAGS (\\Seen))";
        assert_eq!(said(&secrets, fetch), said(&HiddenSecrets::default(), fetch));
    }

    proptest! {
        #[test]
        fn no_secret_of_any_characters_is_left_in_a_text(secret in "\\PC{1,20}", before in "\\PC{0,9}", after in "\\PC{0,9}") {
            prop_assume!(!secret.trim().is_empty() && !PLACEHOLDER.contains(secret.trim()));
            let secrets = HiddenSecrets::new(&[secret.as_bytes()]);
            let mut text = format!("{before}{secret}{after}");
            secrets.hide(&mut text);
            prop_assert!(!text.replace(PLACEHOLDER, "\u{0}").contains(&secret), "{}", text);
        }
    }
}
