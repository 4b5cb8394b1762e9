//! The command line of `culvert-dns`.
