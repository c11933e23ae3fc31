//! Where the state of runs is kept: the same place from whatever folder a run is started.

use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy as _, base_strategy::Xdg};

use super::state_folder::plain_name;
use crate::error::{Error, Result};

/// The state folder of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateLocation {
    /// The folder; it need not exist.
    pub folder: PathBuf,
    /// What to tell the user about the choice.
    pub note: Option<String>,
}

/// Finds the state folder of `migration`: the one that the user names, else `.mailferry/NAME` in the current folder where
/// that is, else `mailferry/NAME` in the user's state home (`$XDG_STATE_HOME`, or `~/.local/state`).
///
/// # Errors
/// Configuration where the user names none and has no home.
pub(crate) fn find_state_folder(named: Option<&Path>, migration: &str) -> Result<StateLocation> {
    choose_folder(named, migration, Path::is_dir, state_home())
}

/// Where what belongs to no single migration is kept; none for a user without a home.
pub(crate) fn shared_state_folder() -> Option<PathBuf> {
    state_home().map(|home| home.join("mailferry"))
}

fn state_home() -> Option<PathBuf> {
    Xdg::new().ok()?.state_dir().filter(|folder| folder.is_absolute())
}

fn choose_folder(
    named: Option<&Path>,
    migration: &str,
    exists: impl Fn(&Path) -> bool,
    home: Option<PathBuf>,
) -> Result<StateLocation> {
    if let Some(named) = named {
        return Ok(StateLocation { folder: named.to_owned(), note: None });
    }
    let name = plain_name(migration);
    let here = Path::new(".mailferry").join(&name);
    if exists(&here) {
        let note = format!("checkpoints are in {} of the current folder", here.display());
        return Ok(StateLocation { folder: here, note: Some(note) });
    }
    match home {
        Some(home) => Ok(StateLocation { folder: home.join("mailferry").join(name), note: None }),
        None => Err(Error::configuration("there is no home folder to keep checkpoints in")
            .advice("Name a folder that stays, by --state DIR")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorClass;

    fn chosen(named: Option<&str>, here: bool, home: Option<&str>) -> Result<StateLocation> {
        choose_folder(named.map(Path::new), "acme", |_| here, home.map(PathBuf::from))
    }

    #[test]
    fn checkpoints_are_where_the_user_says_or_where_they_were_or_at_home() {
        let folder = |found: Result<StateLocation>| found.unwrap().folder.display().to_string();
        assert_eq!(folder(chosen(Some("/data"), true, Some("/home/a"))), "/data");
        assert_eq!(folder(chosen(None, true, Some("/home/a"))), ".mailferry/acme");
        assert_eq!(folder(chosen(None, false, Some("/home/a"))), "/home/a/mailferry/acme");
        assert!(chosen(None, true, None).unwrap().note.unwrap().contains(".mailferry/acme"));
    }

    #[test]
    fn a_user_without_a_home_is_asked_for_a_folder() {
        let error = chosen(None, false, None).unwrap_err();
        assert_eq!(error.class, ErrorClass::Configuration);
        assert!(error.advice.unwrap().contains("--state"));
    }

    proptest! {
        #[test]
        fn the_folder_of_any_migration_stays_below_home(name in ".{1,100}") {
            let folder = choose_folder(None, &name, |_| false, Some("/home/a".into())).unwrap().folder;
            prop_assert!(folder.starts_with("/home/a/mailferry") && folder.components().count() == 5);
            prop_assert!(!folder.components().any(|c| matches!(c, std::path::Component::ParentDir)));
        }
    }
}
