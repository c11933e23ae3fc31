//! Turns lists of mailboxes, as hosting companies have them, into manifests: reads a table, says all that is wrong with
//! it, and makes MailMigrations and Secrets. What stands in the table is never shown, only where: behind a forgotten
//! header or a wrong delimiter, any field may be a password.

pub mod apply;
pub mod column_meaning;
pub mod columns;
pub(crate) mod delimiter_check;
pub mod encoding;
pub(crate) mod files;
pub(crate) mod findings;
mod headings;
mod imapsync_options;
pub mod imapsync_script;
pub(crate) mod login;
pub mod names;
pub mod objects;
pub mod plan;
pub mod rows;
mod script_words;
pub mod side_settings;
pub mod table;
mod user_names;
