//! Length-prefixed frames of a STOQ channel (design, section 4): `u32` big-endian length of what
//! follows, `u8` type, body. This splits and builds; what a type means is for the application.
use bytes::{Buf, Bytes, BytesMut};

/// Bytes before the body: the length and the type.
pub const HEADER_BYTES: usize = 5;
const LENGTH_BYTES: usize = 4;

/// Why a byte stream is not a sequence of frames. The stream cannot be continued after either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// A frame must at least carry its type.
    Empty,
    /// The peer announced more than the limit; nothing was allocated for it.
    TooLong(u32),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => formatter.write_str("frame without a type"),
            Self::TooLong(length) => write!(formatter, "frame of {length} bytes is over the limit"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Length and type of a frame, ready to be sent before its body. `None`: longer than `u32` holds.
#[must_use]
pub fn header(frame_type: u8, body_bytes: usize) -> Option<[u8; HEADER_BYTES]> {
    let length = u32::try_from(body_bytes)
        .ok()?
        .checked_add(1)?
        .to_be_bytes();
    Some([length[0], length[1], length[2], length[3], frame_type])
}

/// Cuts a byte stream that arrives in arbitrary chunks into frames.
///
/// Memory grows with what has arrived, never with what a peer announces.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    buffer: BytesMut,
}

impl Splitter {
    /// `limit` bounds type and body together, in bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            buffer: BytesMut::new(),
        }
    }

    /// Bytes of the frame that has begun and not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Take the next chunk and hand out every frame it completes, without a copy where the frame
    /// lies in one chunk.
    ///
    /// # Errors
    /// When the stream is not a sequence of frames; frames before the fault were handed out.
    pub fn push(
        &mut self,
        mut chunk: Bytes,
        mut emit: impl FnMut(u8, Bytes),
    ) -> Result<(), FrameError> {
        if self.buffer.is_empty() {
            while let Some(total) = self.complete(&chunk)? {
                let mut frame = chunk.split_to(total);
                frame.advance(LENGTH_BYTES);
                emit(frame.get_u8(), frame);
            }
        }
        self.buffer.extend_from_slice(&chunk);
        while let Some(total) = self.complete(&self.buffer)? {
            let mut frame = self.buffer.split_to(total).freeze();
            frame.advance(LENGTH_BYTES);
            emit(frame.get_u8(), frame);
        }
        Ok(())
    }

    /// Total size of the frame at the start of `data`, when all of it is there.
    fn complete(&self, data: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = data.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let announced = u32::from_be_bytes(*prefix);
        let length = announced as usize;
        match length {
            0 => Err(FrameError::Empty),
            _ if length > self.limit => Err(FrameError::TooLong(announced)),
            _ => Ok((data.len() >= LENGTH_BYTES + length).then_some(LENGTH_BYTES + length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (frame_type, body) in frames {
            out.extend(header(*frame_type, body.len()).unwrap());
            out.extend(*body);
        }
        out
    }

    #[test]
    fn frames_come_out_whatever_the_chunk_size() {
        let frames: [(u8, &[u8]); 4] = [(1, b"hello"), (2, b""), (255, &[7; 300]), (9, b"x")];
        let bytes = wire(&frames);
        for size in 1..=bytes.len() {
            let mut splitter = Splitter::new(400);
            let mut seen = Vec::new();
            for chunk in bytes.chunks(size) {
                splitter
                    .push(Bytes::copy_from_slice(chunk), |kind, body| {
                        seen.push((kind, body))
                    })
                    .unwrap();
            }
            assert_eq!(splitter.pending(), 0);
            assert_eq!(seen.len(), frames.len());
            for ((kind, body), (expected_kind, expected)) in seen.iter().zip(frames) {
                assert_eq!((*kind, &body[..]), (expected_kind, expected));
            }
        }
    }

    #[test]
    fn an_announced_size_over_the_limit_is_refused_before_its_bytes_arrive() {
        let mut splitter = Splitter::new(10);
        let error = splitter
            .push(Bytes::from_static(&[0, 0, 0, 11]), |_, _| {})
            .unwrap_err();
        assert_eq!(error, FrameError::TooLong(11));
        assert!(
            splitter
                .push(Bytes::from_static(&[255; 4]), |_, _| {})
                .is_err()
        );
    }

    #[test]
    fn a_frame_without_type_is_refused() {
        let error = Splitter::new(10)
            .push(Bytes::from_static(&[0; 4]), |_, _| {})
            .unwrap_err();
        assert_eq!(error, FrameError::Empty);
    }

    #[test]
    fn a_frame_at_the_limit_is_taken() {
        let mut seen = 0;
        let bytes = wire(&[(3, &[1; 9])]);
        Splitter::new(10)
            .push(Bytes::from(bytes), |_, body| seen += body.len())
            .unwrap();
        assert_eq!(seen, 9);
    }
}
