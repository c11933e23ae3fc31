//! What people call the columns of their lists: in English, Dutch, French, German, Italian, Portuguese and Spanish.

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

use super::column_meaning::{AccountField, ColumnMeaning, all_meanings};
use crate::{api::schema_check, error::Side};

/// The words for either side.
const SIDES: [(Side, &[&str]); 2] = [
    (
        Side::Source,
        &[
            "source", "src", "from", "old", "origin", "alt", "alte", "altes", "alter", "quelle", "ancien", "ancienne",
            "antiguo", "antigua", "origen", "vecchio", "vecchia", "origine", "oud", "oude", "bron", "antigo", "antiga",
            "origem",
        ],
    ),
    (
        Side::Destination,
        &[
            "destination",
            "dest",
            "dst",
            "target",
            "to",
            "new",
            "neu",
            "neue",
            "neues",
            "neuer",
            "ziel",
            "nouveau",
            "nouvelle",
            "nuevo",
            "nueva",
            "destino",
            "nuovo",
            "nuova",
            "destinazione",
            "nieuw",
            "nieuwe",
            "doel",
            "novo",
            "nova",
        ],
    ),
];

/// Of these, the ones that alone stand for a user name. `old` and `new` may head passwords just as well, and what is taken for a
/// user name is shown in the migration.
const BARE: [&str; 8] = ["source", "src", "from", "destination", "dest", "dst", "target", "to"];

/// Between what a column holds and whose it is: `usuario de origen`.
const LINKS: [&str; 6] = ["del", "de", "du", "di", "da", "do"];

const WORDS: [(AccountField, &[&str]); 6] = [
    (
        AccountField::Host,
        &[
            "host",
            "hostname",
            "server",
            "servername",
            "imap",
            "imaphost",
            "imapserver",
            "mailserver",
            "mailhost",
            "serveur",
            "serveurimap",
            "hote",
            "servidor",
            "servidorimap",
            "servidordecorreo",
            "serverimap",
        ],
    ),
    (AccountField::Port, &["port", "imapport", "puerto", "porta", "poort"]),
    (
        AccountField::Username,
        &[
            // English
            "user",
            "username",
            "userid",
            "login",
            "loginname",
            "account",
            "accountname",
            "email",
            "emailaddress",
            "emailaccount",
            "mail",
            "mailaddress",
            "mailaccount",
            "mailbox",
            "address",
            "imapuser",
            "imapusername",
            // German
            "benutzer",
            "benutzername",
            "emailadresse",
            "mailadresse",
            "postfach",
            // French
            "utilisateur",
            "nomutilisateur",
            "nomdutilisateur",
            "identifiant",
            "courriel",
            "adressemail",
            "adresseemail",
            "adressecourriel",
            "adresseelectronique",
            "boitemail",
            "boiteauxlettres",
            "compte",
            "comptemail",
            "compteemail",
            // Spanish
            "usuario",
            "nombredeusuario",
            "correo",
            "correoelectronico",
            "direcciondecorreo",
            "direcciondecorreoelectronico",
            "direccionemail",
            "cuenta",
            "cuentadecorreo",
            "buzon",
            // Italian
            "utente",
            "nomeutente",
            "indirizzo",
            "indirizzoemail",
            "indirizzomail",
            "postaelettronica",
            "casella",
            "casellaemail",
            "casellamail",
            "casellapostale",
            "caselladiposta",
            // Dutch
            "gebruiker",
            "gebruikersnaam",
            "emailadres",
            "mailadres",
            "postvak",
            "inlognaam",
            // Portuguese
            "utilizador",
            "nomedeusuario",
            "nomedeutilizador",
            "correioeletronico",
            "correioelectronico",
            "endereco",
            "enderecodeemail",
            "contadeemail",
            "caixadecorreio",
        ],
    ),
    (
        AccountField::Password,
        &[
            "password",
            "passwd",
            "pass",
            "pwd",
            "pw",
            "passphrase",
            "secret",
            "userpassword",
            "emailpassword",
            "mailpassword",
            "imappassword",
            "passwort",
            "kennwort",
            "motdepasse",
            "mdp",
            "contrasena",
            "clave",
            "parolachiave",
            "wachtwoord",
            "senha",
            "palavrapasse",
        ],
    ),
    (AccountField::Token, &["token", "accesstoken", "oauthtoken", "oauth2token", "bearertoken"]),
    (
        AccountField::Domain,
        &[
            "domain",
            "domainname",
            "maildomain",
            "emaildomain",
            "domane",
            "domaene",
            "domaine",
            "nomdedomaine",
            "dominio",
            "domein",
        ],
    ),
];

/// What a heading says, if it is one that is known. Case, accents, spaces and punctuation do not matter, nor what stands in
/// brackets (`Email Address [Required]`).
pub(super) fn meaning(heading: &str) -> Option<ColumnMeaning> {
    let word = plain(heading);
    if ["name", "mailboxname", "migrationname"].contains(&word.as_str()) {
        return Some(ColumnMeaning::Name);
    }
    let part = |word: &str| WORDS.iter().find(|(_, words)| words.contains(&word)).map(|(part, _)| *part);
    if let Some(part) = part(&word) {
        return Some(ColumnMeaning::Account(None, part));
    }
    // `host1`, `user2` as in imapsync.
    for (side, digit) in [(Side::Source, '1'), (Side::Destination, '2')] {
        if let Some(part) = word.strip_suffix(digit).and_then(part) {
            return Some(ColumnMeaning::Account(Some(side), part));
        }
    }
    for (side, words) in SIDES {
        for side_word in words {
            if word == *side_word && BARE.contains(side_word) {
                return Some(ColumnMeaning::Account(Some(side), AccountField::Username));
            }
            let before = word.strip_suffix(side_word);
            let linked = LINKS.iter().filter_map(|link| before?.strip_suffix(link));
            let rests = [word.strip_prefix(side_word), before];
            if let Some(part) = rests.into_iter().flatten().chain(linked).find_map(part) {
                return Some(ColumnMeaning::Account(Some(side), part));
            }
        }
    }
    None
}

/// The side that a heading names without saying what the column holds.
pub(super) fn bare_side(heading: &str) -> Option<Side> {
    let word = plain(heading);
    SIDES.iter().find(|(_, words)| words.contains(&word.as_str())).map(|(side, _)| *side)
}

fn plain(heading: &str) -> String {
    let mut depth = 0_usize;
    let mut word = String::new();
    for c in heading.nfd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase) {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            c if depth == 0 && c.is_alphanumeric() => word.push(c),
            _ => {}
        }
    }
    word
}

/// What a heading that is not known may have been meant as.
pub(super) fn near(heading: &str) -> Option<ColumnMeaning> {
    let plain = heading.trim().to_lowercase().replace([' ', '-'], "_");
    let names: Vec<String> = all_meanings().map(|meaning| meaning.to_string()).collect();
    let close = |name: &&str| strsim::damerau_levenshtein(name, &plain) <= 2;
    schema_check::nearest_candidate(&plain, names.iter().map(String::as_str).filter(close))
        .and_then(|name| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn headings_in_several_languages_are_known_whatever_their_accents() {
        for (heading, expected) in [
            ("Adresse e-mail", "username"),
            ("Mot de passe", "password"),
            ("Ancien mot de passe", "source_password"),
            ("NOUVEAU MOT DE PASSE", "destination_password"),
            ("Nouveau serveur", "destination_host"),
            ("Correo electrónico", "username"),
            ("Contraseña", "password"),
            ("contrasen\u{303}a antigua", "source_password"),
            ("Usuario de origen", "source_username"),
            ("usuario destino", "destination_username"),
            ("Servidor nuevo", "destination_host"),
            ("Nome utente", "username"),
            ("Vecchia password", "source_password"),
            ("Gebruikersnaam", "username"),
            ("Oud wachtwoord", "source_password"),
            ("Nieuw wachtwoord", "destination_password"),
            ("Endereço de e-mail", "username"),
            ("Senha nova", "destination_password"),
            ("Domäne", "domain"),
            ("Domaine", "domain"),
            ("Altes Passwort", "source_password"),
        ] {
            assert_eq!(meaning(heading).map(|meaning| meaning.to_string()).as_deref(), Some(expected), "{heading}");
        }
    }

    #[test]
    fn what_says_neither_an_account_nor_a_side_is_not_known() {
        for heading in
            ["Enabled", "Active", "Aktiv", "Status", "Nom", "Nombre", "Notes", "", "1", "Total", "Quota", "Department"]
        {
            assert_eq!(meaning(heading), None, "{heading}");
        }
    }

    #[test]
    fn no_word_stands_for_two_things() {
        let words: Vec<&str> = WORDS.iter().flat_map(|(_, words)| words.iter().copied()).collect();
        assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len());
        for word in words.iter().chain(SIDES.iter().flat_map(|(_, words)| *words)) {
            assert_eq!(plain(word), **word, "as headings are compared");
        }
        for (_, words) in SIDES {
            assert!(words.iter().all(|word| !BARE.contains(word) || meaning(word).is_some()));
        }
    }
}
