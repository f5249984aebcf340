//! The output of an attempt in frames, for clients that resume a read, or want to know exactly what is missing.
//!
//! A frame is a line with two decimal numbers, the place of its first byte in the whole output and how many bytes it has, and then
//! these bytes. Between two frames whose places don't meet, the output limit has dropped bytes.

/// The media type of output in frames.
pub const LOG_FRAMES: &str = "application/x-rota-log-frames";
/// Bytes of the longest head of a frame without its line feed: two numbers and a space.
const HEAD_BYTES_MAX: usize = 41;

/// The head of a frame of `bytes` bytes that begins at `offset`.
#[must_use]
pub fn frame_head(offset: u64, bytes: usize) -> String {
    format!("{offset} {bytes}\n")
}

/// The line that stands for bytes that the output limit has dropped, where output is shown as text.
#[must_use]
pub fn dropped_mark(bytes: u64) -> String {
    format!("[… {bytes} bytes were dropped by the output limit …]\n")
}

/// Takes frames apart as they come. Bytes are given out before their frame is complete.
#[derive(Clone, Debug, Default)]
pub struct FrameReader {
    /// What came and was not given out.
    buffer: Vec<u8>,
    /// The next byte's place, and how many more the frame has.
    frame: (u64, u64),
}

/// These bytes are not frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the output is not in frames")]
pub struct NotFrames;

impl FrameReader {
    /// Adds what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next bytes and the place of the first of them; `None` until more has come.
    ///
    /// # Errors
    /// If a frame does not begin with its two numbers.
    pub fn take(&mut self) -> Result<Option<(u64, Vec<u8>)>, NotFrames> {
        loop {
            let (offset, left) = self.frame;
            if left > 0 {
                let length = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                if length == 0 {
                    return Ok(None);
                }
                let data: Vec<u8> = self.buffer.drain(..length).collect();
                self.frame = (offset.saturating_add(length as u64), left - length as u64);
                return Ok(Some((offset, data)));
            }
            let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
                let possible = self.buffer.len() <= HEAD_BYTES_MAX;
                return if possible { Ok(None) } else { Err(NotFrames) };
            };
            let head: Vec<u8> = self.buffer.drain(..=end).collect();
            self.frame = parse_head(&head).ok_or(NotFrames)?;
        }
    }
}

fn parse_head(line: &[u8]) -> Option<(u64, u64)> {
    let (offset, bytes) = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.split_once(' ')?;
    Some((offset.parse().ok()?, bytes.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places and bytes of what is read when `bytes` come in parts of `size`.
    fn read(bytes: &[u8], size: usize) -> Result<Vec<(u64, Vec<u8>)>, NotFrames> {
        let (mut reader, mut found) = (FrameReader::default(), Vec::<(u64, Vec<u8>)>::new());
        for part in bytes.chunks(size) {
            reader.push(part);
            while let Some((offset, data)) = reader.take()? {
                match found.last_mut() {
                    Some((at, known)) if *at + known.len() as u64 == offset => known.extend(data),
                    _ => found.push((offset, data)),
                }
            }
        }
        Ok(found)
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let mut bytes = Vec::new();
        for (offset, data) in [(0, "7 2\na"), (5, "\nb"), (99, "end"), (102, "")] {
            bytes.extend(frame_head(offset, data.len()).into_bytes());
            bytes.extend(data.as_bytes());
        }
        let wanted = vec![(0, b"7 2\na\nb".to_vec()), (99, b"end".to_vec())];
        for size in 1..=bytes.len() {
            assert_eq!(read(&bytes, size), Ok(wanted.clone()), "in parts of {size}");
        }
    }

    #[test]
    fn other_bytes_are_refused_and_a_head_may_be_exactly_as_long_as_it_can_get() {
        assert_eq!(read(b"hello\n", 6), Err(NotFrames));
        assert_eq!(read(b"1 x\n", 6), Err(NotFrames));
        let head = |bytes: usize| read(&vec![b'1'; bytes], bytes);
        assert_eq!(head(HEAD_BYTES_MAX - 1), Ok(vec![]));
        assert_eq!(head(HEAD_BYTES_MAX), Ok(vec![]));
        assert_eq!(head(HEAD_BYTES_MAX + 1), Err(NotFrames));
        let longest = frame_head(u64::MAX, usize::MAX);
        assert_eq!(longest.len(), HEAD_BYTES_MAX + 1);
    }
}
