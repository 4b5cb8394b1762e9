//! The token of a check: a `Verified<T>` exists only where this crate has judged the `T`.

/// A value that passed the judge of this crate; nobody else can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    body: T,
}

impl<T> Verified<T> {
    pub(crate) fn vouch(body: T) -> Self {
        Self { body }
    }

    pub fn get(&self) -> &T {
        &self.body
    }

    pub fn into_inner(self) -> T {
        self.body
    }
}
