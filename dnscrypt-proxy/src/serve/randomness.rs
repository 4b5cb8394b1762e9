//! The operating system's randomness, fetched a page at a time: for the 12 bytes of a nonce a system call
//! costs a tenth of a query.

use rand_core::{CryptoRng, Error, OsRng, RngCore, impls};
use zeroize::Zeroize as _;

const PAGE: usize = 4096;

/// Randomness of which every byte is given out once and then erased.
pub(super) struct Page {
    bytes: Box<[u8; PAGE]>,
    used: usize,
}

impl Page {
    /// Empty: fetched when first asked for.
    pub(super) fn new() -> Self {
        Self {
            bytes: Box::new([0; PAGE]),
            used: PAGE,
        }
    }
}

impl CryptoRng for Page {}

impl RngCore for Page {
    fn next_u32(&mut self) -> u32 {
        impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        if to.len() > PAGE {
            return OsRng.fill_bytes(to);
        }
        if self.used + to.len() > PAGE {
            OsRng.fill_bytes(self.bytes.as_mut_slice());
            self.used = 0;
        }
        if let Some(fresh) = self.bytes.get_mut(self.used..self.used + to.len()) {
            to.copy_from_slice(fresh);
            fresh.zeroize();
        }
        self.used += to.len();
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(to);
        Ok(())
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_byte_is_given_out_twice_and_none_stays_behind() {
        let mut page = Page::new();
        let mut seen = HashSet::new();

        for _ in 0..2_000 {
            let mut nonce = [0; 12];
            page.fill_bytes(&mut nonce);
            assert!(seen.insert(nonce));
        }

        let given = page.bytes.get(..page.used).unwrap();
        assert!(given.iter().all(|byte| *byte == 0));
        let mut long = vec![0; PAGE + 1];
        page.fill_bytes(&mut long);
        assert!(long.iter().any(|byte| *byte != 0));
    }
}
