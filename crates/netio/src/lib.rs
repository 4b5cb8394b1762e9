//! Linux network I/O: the only crate with `unsafe`.

pub mod netlink;
pub mod nftables;
pub mod privileges;
