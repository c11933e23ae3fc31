//! For whom a master user may log in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One entry of `masterUsers.users`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AllowedUsers {
    /// Everybody: `*`.
    All,
    /// Every user whose name has this domain behind its last `@`; in lower case.
    Domain(String),
    /// This user alone; in lower case.
    One(String),
}

impl AllowedUsers {
    /// True when the user of this login name is one of these. Case counts for nothing. Of a name with several `@`, only
    /// what stands behind the last one is its domain; a name with a control character is nobody's.
    #[must_use]
    pub(crate) fn allows(&self, user: &str) -> bool {
        let user = user.to_lowercase();
        if user.is_empty() || user.contains(char::is_control) {
            return false;
        }
        match self {
            Self::All => true,
            Self::Domain(domain) => user.rsplit_once('@').is_some_and(|(_, of_user)| of_user == domain),
            Self::One(name) => user == *name,
        }
    }
}

impl TryFrom<String> for AllowedUsers {
    type Error = UsersParseError;

    fn try_from(text: String) -> Result<Self, UsersParseError> {
        let name = text.to_lowercase();
        match name.strip_prefix('@') {
            _ if name == "*" => Ok(Self::All),
            _ if name.is_empty() || name.contains(['*', ' ']) || name.contains(char::is_control) => {
                Err(UsersParseError(text))
            }
            Some(domain) if domain.is_empty() || domain.contains('@') => Err(UsersParseError(text)),
            Some(domain) => Ok(Self::Domain(domain.to_owned())),
            None => Ok(Self::One(name)),
        }
    }
}

impl From<AllowedUsers> for String {
    fn from(users: AllowedUsers) -> Self {
        users.to_string()
    }
}

impl fmt::Display for AllowedUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Domain(domain) => write!(f, "@{domain}"),
            Self::One(name) => f.write_str(name),
        }
    }
}

/// What names no users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no users: write a domain (@customer.example), one user (alice@customer.example), or * for all")]
pub struct UsersParseError(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entry: &str, user: &str) -> bool {
        AllowedUsers::try_from(entry.to_owned()).unwrap().allows(user)
    }

    #[test]
    fn a_domain_allows_all_of_its_users_and_no_others() {
        for user in ["bob@acme.example", "Bob@ACME.Example", "a@b@acme.example"] {
            assert!(allows("@Acme.example", user), "{user}");
        }
        for user in [
            "bob@acme.example.org",
            "bob@notacme.example",
            "bob@mail.acme.example",
            "acme.example",
            "@acme.example@",
            "",
        ] {
            assert!(!allows("@acme.example", user), "{user}");
        }
    }

    #[test]
    fn a_name_with_a_control_character_is_nobodys() {
        for user in ["ceo@other.example\u{1}x=@acme.example", "ceo@other.example\0@acme.example", "a\r\n@acme.example"]
        {
            assert!(!allows("@acme.example", user) && !allows("*", user), "{user:?}");
        }
    }

    #[test]
    fn one_user_is_allowed_by_the_whole_name() {
        assert!(allows("Alice@acme.example", "alice@ACME.example") && allows("bob", "bob"));
        for user in ["malice@acme.example", "alice@acme.example.org", "alice", "bob@acme.example"] {
            assert!(!allows("alice@acme.example", user) && !allows("bob", user), "{user}");
        }
        assert!(allows("*", "anybody"));
    }

    #[test]
    fn what_names_no_users_is_refused_with_what_to_write() {
        for wrong in ["", "@", "*@acme.example", "@a@b", "a b", "a\n"] {
            let error = AllowedUsers::try_from(wrong.to_owned()).unwrap_err().to_string();
            assert!(error.contains("@customer.example") && error.contains("* for all"), "{error}");
        }
        for right in ["*", "@acme.example", "alice@acme.example"] {
            assert_eq!(AllowedUsers::try_from(right.to_owned()).unwrap().to_string(), right);
        }
    }
}
