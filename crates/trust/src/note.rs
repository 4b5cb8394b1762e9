//! Signed notes (<https://c2sp.org/signed-note>): a text, and lines of signatures below it.
//!
//! Only the frame is read here. Nothing in the text counts before a known key has verified it.

use std::fmt;

use crate::lines::{base64, is_key_name, to_base64};

const MAX_NOTE_BYTES: usize = 32 * 1024;
/// The specification asks for at least 16.
const MAX_SIGNATURES: usize = 64;
const LINE_START: &str = "\u{2014} ";

/// Why text is not a signed note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("the note is longer than {MAX_NOTE_BYTES} bytes")]
    TooBig,
    #[error("the note has a control character other than newline")]
    ControlCharacter,
    #[error("the note has no text that ends in a newline and an empty line")]
    NoText,
    #[error("the note has no signature")]
    NoSignature,
    #[error("the note has more than {MAX_SIGNATURES} signatures")]
    TooManySignatures,
    #[error("a signature line is not of the form: dash, name, base64")]
    SignatureLine,
}

/// One signature line: who claims to have signed, and the bytes after the key id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    pub name: String,
    pub key_id: u32,
    pub bytes: Vec<u8>,
}

/// A text with signatures that nobody has verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(NoteError::TooBig);
        }
        if note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(NoteError::ControlCharacter);
        }
        // The last empty line divides: signature lines are never empty.
        let blank = note.rfind("\n\n").ok_or(NoteError::NoText)?;
        let (text, rest) = note.split_at(blank + 1);
        let lines = rest
            .strip_prefix('\n')
            .and_then(|lines| lines.strip_suffix('\n'));
        let lines = lines.ok_or(NoteError::NoSignature)?;
        if lines.split('\n').count() > MAX_SIGNATURES {
            return Err(NoteError::TooManySignatures);
        }
        let signatures = lines
            .split('\n')
            .map(parse_line)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            text: text.to_owned(),
            signatures,
        })
    }

    /// Frames a text that this program made: it ends in a newline and has no control characters.
    pub(crate) fn unsigned(text: String) -> Self {
        Self {
            text,
            signatures: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, signature: NoteSignature) {
        self.signatures.push(signature);
    }

    /// What is signed, with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures
            .iter()
            .try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.key_id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.bytes);
        write!(f, "{LINE_START}{} {}", self.name, to_base64(&bytes))
    }
}

fn parse_line(line: &str) -> Result<NoteSignature, NoteError> {
    let (name, encoded) = line
        .strip_prefix(LINE_START)
        .and_then(|line| line.split_once(' '))
        .filter(|(name, _)| is_key_name(name))
        .ok_or(NoteError::SignatureLine)?;
    let bytes = base64(encoded).ok_or(NoteError::SignatureLine)?;
    match bytes.split_first_chunk::<4>() {
        Some((id, signature)) if !signature.is_empty() => Ok(NoteSignature {
            name: name.to_owned(),
            key_id: u32::from_be_bytes(*id),
            bytes: signature.to_vec(),
        }),
        _ => Err(NoteError::SignatureLine),
    }
}
