//! Manifests from files: the same ones that a cluster takes, checked by the same schema and rules.

mod kinds;
mod origin;
mod reading;
mod set;

pub(crate) use self::reading::{from_command_line, grant_name};
pub use self::{reading::load, set::ManifestSet};
