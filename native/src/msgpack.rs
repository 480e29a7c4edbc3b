//! Canonical msgpack: positional arrays, shortest forms, no negative numbers, floats, maps or
//! extension types.
//!
//! `Reader` yields one token at a time and refuses every form that `Writer` would not have
//! written, so what decodes re-encodes to itself. Lengths are compared with what is left of the
//! input before anything is allocated.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Bytes(&'a [u8]),
    Text(&'a str),
    /// An array of so many items follows.
    Array(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    Truncated,
    NotShortest,
    Forbidden,
    NotText,
    TrailingBytes,
    TooDeep,
    /// A typed read found another type, or a number or length outside its range.
    Unexpected,
}

impl DecodeError {
    pub fn text(self) -> &'static str {
        match self {
            Self::Truncated => "the bytes end inside a value",
            Self::NotShortest => "a number or length is not in its shortest form",
            Self::Forbidden => "negative numbers, floats, maps and extensions are not allowed",
            Self::NotText => "a string is not UTF-8",
            Self::TrailingBytes => "bytes follow the value",
            Self::TooDeep => "arrays are nested too deep",
            Self::Unexpected => "a value has an unexpected type or size",
        }
    }
}

pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Next token. Items of an array follow it as tokens of their own.
    pub fn token(&mut self) -> Result<Token<'a>, DecodeError> {
        let head = self.take(1)?[0];
        match head {
            0x00..=0x7f => Ok(Token::Unsigned(head.into())),
            0x90..=0x9f => self.array((head & 0x0f).into()),
            0xa0..=0xbf => self.text((head & 0x1f).into()),
            0xc0 => Ok(Token::Nil),
            0xc2 => Ok(Token::Bool(false)),
            0xc3 => Ok(Token::Bool(true)),
            0xc4 => self.length(1, 0).and_then(|length| self.bytes(length)),
            0xc5 => self.length(2, 0x100).and_then(|length| self.bytes(length)),
            0xc6 => self
                .length(4, 0x1_0000)
                .and_then(|length| self.bytes(length)),
            0xcc => self.unsigned(1, 0x80).map(Token::Unsigned),
            0xcd => self.unsigned(2, 0x100).map(Token::Unsigned),
            0xce => self.unsigned(4, 0x1_0000).map(Token::Unsigned),
            0xcf => self.unsigned(8, 0x1_0000_0000).map(Token::Unsigned),
            0xd9 => self.length(1, 0x20).and_then(|length| self.text(length)),
            0xda => self.length(2, 0x100).and_then(|length| self.text(length)),
            0xdb => self
                .length(4, 0x1_0000)
                .and_then(|length| self.text(length)),
            0xdc => self.length(2, 0x10).and_then(|length| self.array(length)),
            0xdd => self
                .length(4, 0x1_0000)
                .and_then(|length| self.array(length)),
            _ => Err(DecodeError::Forbidden),
        }
    }

    pub fn read_unsigned(&mut self) -> Result<u64, DecodeError> {
        match self.token()? {
            Token::Unsigned(value) => Ok(value),
            _ => Err(DecodeError::Unexpected),
        }
    }

    pub fn read_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        match self.token()? {
            Token::Bytes(value) => Ok(value),
            _ => Err(DecodeError::Unexpected),
        }
    }

    /// Bytes of exactly this length, such as a hash.
    pub fn read_fixed<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        self.read_bytes()?
            .try_into()
            .map_err(|_| DecodeError::Unexpected)
    }

    pub fn read_text(&mut self) -> Result<&'a str, DecodeError> {
        match self.token()? {
            Token::Text(value) => Ok(value),
            _ => Err(DecodeError::Unexpected),
        }
    }

    /// Number of items of an array, at most `count_max`.
    pub fn read_array(&mut self, count_max: usize) -> Result<usize, DecodeError> {
        match self.token()? {
            Token::Array(count) if count <= count_max => Ok(count),
            _ => Err(DecodeError::Unexpected),
        }
    }

    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes)
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn unsigned(&mut self, width: usize, least: u64) -> Result<u64, DecodeError> {
        let value = self
            .take(width)?
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        if value < least {
            return Err(DecodeError::NotShortest);
        }
        Ok(value)
    }

    fn length(&mut self, width: usize, least: u64) -> Result<usize, DecodeError> {
        usize::try_from(self.unsigned(width, least)?).map_err(|_| DecodeError::Truncated)
    }

    fn bytes(&mut self, length: usize) -> Result<Token<'a>, DecodeError> {
        self.take(length).map(Token::Bytes)
    }

    fn text(&mut self, length: usize) -> Result<Token<'a>, DecodeError> {
        std::str::from_utf8(self.take(length)?)
            .map(Token::Text)
            .map_err(|_| DecodeError::NotText)
    }

    fn array(&self, count: usize) -> Result<Token<'a>, DecodeError> {
        // Every item takes at least one byte.
        if count > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(Token::Array(count))
    }
}

/// Writes the one canonical form of each value. Lengths must fit 32 bits: the caller bounds them.
#[derive(Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    pub fn nil(&mut self) {
        self.out.push(0xc0);
    }

    pub fn bool(&mut self, value: bool) {
        self.out.push(if value { 0xc3 } else { 0xc2 });
    }

    pub fn unsigned(&mut self, value: u64) {
        match value {
            0..=0x7f => self.out.push(value as u8),
            0x80..=0xff => self.head(0xcc, value, 1),
            0x100..=0xffff => self.head(0xcd, value, 2),
            0x1_0000..=0xffff_ffff => self.head(0xce, value, 4),
            _ => self.head(0xcf, value, 8),
        }
    }

    pub fn bytes(&mut self, value: &[u8]) {
        let length = value.len() as u64;
        match length {
            0..=0xff => self.head(0xc4, length, 1),
            0x100..=0xffff => self.head(0xc5, length, 2),
            _ => self.head(0xc6, length, 4),
        }
        self.out.extend_from_slice(value);
    }

    pub fn text(&mut self, value: &str) {
        let length = value.len() as u64;
        match length {
            0..=0x1f => self.out.push(0xa0 | length as u8),
            0x20..=0xff => self.head(0xd9, length, 1),
            0x100..=0xffff => self.head(0xda, length, 2),
            _ => self.head(0xdb, length, 4),
        }
        self.out.extend_from_slice(value.as_bytes());
    }

    /// Head of an array; its items follow.
    pub fn array(&mut self, count: usize) {
        match count {
            0..=0x0f => self.out.push(0x90 | count as u8),
            0x10..=0xffff => self.head(0xdc, count as u64, 2),
            _ => self.head(0xdd, count as u64, 4),
        }
    }

    fn head(&mut self, kind: u8, value: u64, width: usize) {
        self.out.push(kind);
        self.out
            .extend_from_slice(&value.to_be_bytes()[8 - width..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(data: &[u8]) -> Result<Token<'_>, DecodeError> {
        Reader::new(data).token()
    }

    #[test]
    fn numbers_at_every_border_come_back() {
        for value in [0, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, u64::MAX] {
            let mut writer = Writer::new();
            writer.unsigned(value);
            assert_eq!(token(&writer.into_bytes()), Ok(Token::Unsigned(value)));
        }
    }

    #[test]
    fn strings_at_every_border_come_back() {
        for length in [0, 31, 32, 255, 256, 65535, 65536] {
            let text = "x".repeat(length);
            let mut writer = Writer::new();
            writer.text(&text);
            writer.bytes(text.as_bytes());
            let data = writer.into_bytes();
            let mut reader = Reader::new(&data);
            assert_eq!(reader.read_text(), Ok(&text[..]));
            assert_eq!(reader.read_bytes(), Ok(text.as_bytes()));
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn longer_forms_are_refused() {
        for data in [
            &[0xcc, 0x7f][..],
            &[0xcd, 0, 0xff],
            &[0xce, 0, 0, 0xff, 0xff],
            &[0xcf, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            &[0xc5, 0, 1, 0],
            &[0xc6, 0, 0, 0, 1, 0],
            &[0xd9, 1, 0x61],
            &[0xda, 0, 1, 0x61],
            &[0xdc, 0, 1, 0],
            &[0xdd, 0, 0, 0, 1, 0],
        ] {
            assert_eq!(token(data), Err(DecodeError::NotShortest), "{data:?}");
        }
    }

    #[test]
    fn forbidden_types_are_refused() {
        for head in [
            0x80, 0xc1, 0xc7, 0xca, 0xcb, 0xd0, 0xd3, 0xd4, 0xd8, 0xde, 0xff,
        ] {
            let data = [head, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(token(&data), Err(DecodeError::Forbidden), "{head:x}");
        }
    }

    #[test]
    fn a_length_beyond_the_input_is_refused_before_it_is_believed() {
        assert_eq!(
            token(&[0xdd, 0xff, 0xff, 0xff, 0xff]),
            Err(DecodeError::Truncated)
        );
        assert_eq!(
            token(&[0xc6, 0xff, 0xff, 0xff, 0xff]),
            Err(DecodeError::Truncated)
        );
        assert_eq!(token(&[]), Err(DecodeError::Truncated));
        assert_eq!(token(&[0xa1, 0xff]), Err(DecodeError::NotText));
    }

    #[test]
    fn typed_reads_refuse_other_types() {
        assert_eq!(
            Reader::new(&[0xc0]).read_unsigned(),
            Err(DecodeError::Unexpected)
        );
        assert_eq!(
            Reader::new(&[0x01]).read_bytes(),
            Err(DecodeError::Unexpected)
        );
        assert_eq!(
            Reader::new(&[0x92, 0, 0]).read_array(1),
            Err(DecodeError::Unexpected)
        );
        assert_eq!(
            Reader::new(&[0xc4, 1, 0]).read_fixed::<2>(),
            Err(DecodeError::Unexpected)
        );
    }
}
