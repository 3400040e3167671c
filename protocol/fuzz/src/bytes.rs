//! The fuzzer's bytes, as a source of choices.

/// Bytes that are taken one after the other; after the last come zeros.
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// All of them.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// At most `most` of the next bytes.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A number below `n`, which is at most 2^16.
    pub fn below(&mut self, n: usize) -> usize {
        let wide = if n > 256 { usize::from(self.byte()) << 8 } else { 0 };
        (wide + usize::from(self.byte())) % n.max(1)
    }

    /// Whether something that happens once in `n` times happens; not when the bytes are at an end.
    pub fn once_in(&mut self, n: u8) -> bool {
        self.byte() % n == n - 1
    }

    /// Mostly a small number, sometimes any.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            255 => self.take(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
            254 => u64::MAX,
            small => u64::from(small % 16),
        }
    }

    /// One of `things`.
    pub fn pick<'t, T>(&mut self, things: &'t [T]) -> Option<&'t T> {
        things.get(self.below(things.len()))
    }

    /// Those of the first 16 `things` that two bytes name.
    pub fn some<T: Clone>(&mut self, things: &[T]) -> Vec<T> {
        let mask = u16::from_le_bytes([self.byte(), self.byte()]);
        things
            .iter()
            .take(16)
            .enumerate()
            .filter(|(at, _)| mask >> at & 1 == 1)
            .map(|(_, thing)| thing.clone())
            .collect()
    }

    /// Changes a few bytes of `written`, or its length.
    pub fn garble(&mut self, written: &mut Vec<u8>) {
        for _ in 0..1 + self.below(4) {
            let at = self.below(written.len().clamp(1, 1 << 16));
            match self.byte() {
                0 => written.truncate(at),
                1 => written.extend_from_slice(self.take(4)),
                with => written.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= with),
            }
        }
    }
}
