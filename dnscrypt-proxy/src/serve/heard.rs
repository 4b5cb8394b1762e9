//! What became of a question that was asked for a server's workers.

/// What those who were asked have to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An answer; SERVFAIL, where nobody could be reached.
    Answer(Vec<u8>),
    /// A failure that no older answer may stand in for: what came was refused by DNSSEC validation, or may have been.
    Refused(Vec<u8>),
    /// SERVFAIL, since whoever asked has taken what one may take: others may ask the same.
    Busy(Vec<u8>),
    /// Nothing.
    Silence,
}

impl Heard {
    /// What is to be sent, if anything is.
    #[must_use]
    pub fn into_message(self) -> Option<Vec<u8>> {
        match self {
            Self::Answer(message) | Self::Refused(message) | Self::Busy(message) => Some(message),
            Self::Silence => None,
        }
    }
}

impl From<Option<Vec<u8>>> for Heard {
    fn from(answer: Option<Vec<u8>>) -> Self {
        answer.map_or(Self::Silence, Self::Answer)
    }
}
