//! The strict, deterministic CBOR of every signed object (RFC 8949 section 4.2.1).
//!
//! Maps with integer keys in ascending order, definite lengths, no tags, no floats. A decoder reads
//! the exact fields in their order, then encodes again and compares: what is not canonical is refused.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// The version that every object of this crate carries under key 0.
pub const VERSION: u8 = 1;

/// Why bytes are not the object that they were said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{got} bytes are more than the {max} that this object may have")]
    TooBig { got: usize, max: usize },
    #[error("not a map of exactly {fields} fields")]
    NotAMap { fields: u8 },
    #[error("field {field} is missing, of another type, or out of its bounds")]
    Field { field: u8 },
    #[error("version {0} is not known to this program")]
    UnknownVersion(u64),
    #[error("bytes follow after the end of the object")]
    Trailing,
    #[error("the encoding is not the canonical one")]
    NotCanonical,
}

/// An object with one canonical encoding of bounded size.
pub(crate) trait Object: Sized {
    const MAX_BYTES: usize;
    fn write(&self, w: &mut Writer);
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

pub(crate) fn encode<T: Object>(object: &T) -> Vec<u8> {
    let mut writer = Writer(Encoder::new(Vec::new()));
    object.write(&mut writer);
    writer.0.into_writer()
}

pub(crate) fn decode<T: Object>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > T::MAX_BYTES {
        return Err(DecodeError::TooBig {
            got: bytes.len(),
            max: T::MAX_BYTES,
        });
    }
    let mut reader = Reader {
        decoder: Decoder::new(bytes),
        field: 0,
    };
    let object = T::read(&mut reader)?;
    if reader.decoder.position() != bytes.len() {
        return Err(DecodeError::Trailing);
    }
    if encode(&object) != bytes {
        return Err(DecodeError::NotCanonical);
    }
    Ok(object)
}

/// Writes fields into memory, which cannot fail: the results of minicbor are dropped for that reason.
pub(crate) struct Writer(Encoder<Vec<u8>>);

impl Writer {
    /// Opens a map of `fields` entries and writes the version as its first.
    pub(crate) fn open(&mut self, fields: u8, version: u8) {
        self.map(fields);
        self.uint(0, u64::from(version));
    }

    pub(crate) fn map(&mut self, fields: u8) {
        let _infallible = self.0.map(u64::from(fields));
    }

    pub(crate) fn uint(&mut self, key: u8, value: u64) {
        let _infallible = self.key(key).u64(value);
    }

    pub(crate) fn bytes(&mut self, key: u8, value: &[u8]) {
        let _infallible = self.key(key).bytes(value);
    }

    pub(crate) fn text(&mut self, key: u8, value: &str) {
        let _infallible = self.key(key).str(value);
    }

    pub(crate) fn optional_bytes(&mut self, key: u8, value: Option<&[u8; 32]>) {
        let encoder = self.key(key);
        let _infallible = match value {
            Some(bytes) => encoder.bytes(bytes),
            None => encoder.null(),
        };
    }

    pub(crate) fn list<T>(&mut self, key: u8, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        // A length beyond u64 does not exist on any machine.
        let _infallible = self
            .key(key)
            .array(u64::try_from(items.len()).unwrap_or(u64::MAX));
        for item in items {
            each(self, item);
        }
    }

    pub(crate) fn nested(&mut self, key: u8, write: impl FnOnce(&mut Self)) {
        self.key(key);
        write(self);
    }

    pub(crate) fn item_uint(&mut self, value: u64) {
        let _infallible = self.0.u64(value);
    }

    pub(crate) fn item_bytes(&mut self, value: &[u8]) {
        let _infallible = self.0.bytes(value);
    }

    pub(crate) fn item_text(&mut self, value: &str) {
        let _infallible = self.0.str(value);
    }

    fn key(&mut self, key: u8) -> &mut Encoder<Vec<u8>> {
        let _infallible = self.0.u8(key);
        &mut self.0
    }
}

/// Reads the exact fields in their order; an error names the field.
pub(crate) struct Reader<'b> {
    decoder: Decoder<'b>,
    field: u8,
}

impl<'b> Reader<'b> {
    /// Expects a map of exactly `fields` entries whose first is a version that is known.
    pub(crate) fn open(&mut self, fields: u8) -> Result<u8, DecodeError> {
        self.map(fields)?;
        match self.uint(0)? {
            v if v == u64::from(VERSION) => Ok(VERSION),
            other => Err(DecodeError::UnknownVersion(other)),
        }
    }

    /// The same for an object with fields that may be absent, which [`Reader::is_next`] tells: `least` entries or more.
    /// A number of entries that does not fit is found when the object is encoded again.
    pub(crate) fn open_at_least(&mut self, least: u8) -> Result<u8, DecodeError> {
        if self.open_map()? < u64::from(least) {
            return Err(DecodeError::NotAMap { fields: least });
        }
        match self.uint(0)? {
            v if v == u64::from(VERSION) => Ok(VERSION),
            other => Err(DecodeError::UnknownVersion(other)),
        }
    }

    /// Whether the next entry is `key`.
    pub(crate) fn is_next(&mut self, key: u8) -> bool {
        matches!(self.decoder.probe().u8(), Ok(found) if found == key)
    }

    pub(crate) fn map(&mut self, fields: u8) -> Result<(), DecodeError> {
        match self.decoder.map() {
            Ok(Some(found)) if found == u64::from(fields) => Ok(()),
            _ => Err(DecodeError::NotAMap { fields }),
        }
    }

    /// Opens a map whose number of entries says what it is.
    pub(crate) fn open_map(&mut self) -> Result<u64, DecodeError> {
        match self.decoder.map() {
            Ok(Some(fields)) => Ok(fields),
            _ => Err(self.refused()),
        }
    }

    pub(crate) fn key(&mut self, key: u8) -> Result<(), DecodeError> {
        self.field = key;
        match self.decoder.u8() {
            Ok(found) if found == key => Ok(()),
            _ => Err(self.refused()),
        }
    }

    pub(crate) fn uint(&mut self, key: u8) -> Result<u64, DecodeError> {
        self.key(key)?;
        self.item_uint()
    }

    pub(crate) fn uint8(&mut self, key: u8) -> Result<u8, DecodeError> {
        let value = self.uint(key)?;
        u8::try_from(value).map_err(|_| self.refused())
    }

    pub(crate) fn uint32(&mut self, key: u8) -> Result<u32, DecodeError> {
        let value = self.uint(key)?;
        u32::try_from(value).map_err(|_| self.refused())
    }

    pub(crate) fn bytes(&mut self, key: u8, max: usize) -> Result<Vec<u8>, DecodeError> {
        self.key(key)?;
        let bytes = self.item_bytes()?;
        if bytes.len() > max {
            return Err(self.refused());
        }
        Ok(bytes.to_vec())
    }

    pub(crate) fn array<const N: usize>(&mut self, key: u8) -> Result<[u8; N], DecodeError> {
        self.key(key)?;
        self.item_array()
    }

    pub(crate) fn optional_array(&mut self, key: u8) -> Result<Option<[u8; 32]>, DecodeError> {
        self.key(key)?;
        if matches!(self.decoder.datatype(), Ok(Type::Null)) {
            return self
                .decoder
                .null()
                .map(|()| None)
                .map_err(|_| self.refused());
        }
        self.item_array().map(Some)
    }

    pub(crate) fn text(&mut self, key: u8, max: usize) -> Result<String, DecodeError> {
        self.key(key)?;
        self.item_text(max)
    }

    pub(crate) fn list<T>(
        &mut self,
        key: u8,
        max: usize,
        mut each: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.key(key)?;
        let count = match self.decoder.array() {
            Ok(Some(count)) => usize::try_from(count).map_err(|_| self.refused())?,
            _ => return Err(self.refused()),
        };
        if count > max {
            return Err(self.refused());
        }
        // Not allocated ahead: the count is a claim of the sender until the items are there.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(each(self)?);
        }
        Ok(items)
    }

    pub(crate) fn item_uint(&mut self) -> Result<u64, DecodeError> {
        self.decoder.u64().map_err(|_| self.refused())
    }

    pub(crate) fn item_bytes(&mut self) -> Result<&'b [u8], DecodeError> {
        self.decoder.bytes().map_err(|_| self.refused())
    }

    pub(crate) fn item_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.item_bytes()?;
        bytes.try_into().map_err(|_| self.refused())
    }

    pub(crate) fn item_text(&mut self, max: usize) -> Result<String, DecodeError> {
        match self.decoder.str() {
            Ok(text) if text.len() <= max => Ok(text.to_owned()),
            _ => Err(self.refused()),
        }
    }

    /// The error that names the field at hand.
    pub(crate) fn refused(&self) -> DecodeError {
        DecodeError::Field { field: self.field }
    }
}
