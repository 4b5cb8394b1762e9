//! What people propose and sign, on their own machines: folders of files, and `ssh-keygen`. Nothing here needs a server or a data
//! directory, and nothing decides: the judge is `trust`.

pub mod case;
pub mod folder;
pub mod pen;
