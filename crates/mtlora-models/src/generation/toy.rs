//! A deterministic model for the tests: logits from a hash of the whole sequence.

/// Like a model with a cache, it remembers each row's earlier tokens itself.
pub(super) struct Toy {
    pub vocab_size: usize,
    pub max_positions: usize,
    /// The step whose first logit is replaced, and the replacement.
    pub spoiled: Option<(usize, f32)>,
    /// The step that fails.
    pub failing: Option<usize>,
    /// The step that returns one logit too many.
    pub overlong: Option<usize>,
    /// Every row's tokens.
    rows: Vec<Vec<u32>>,
    /// The number of rows in each call.
    pub calls: Vec<usize>,
    /// How many tokens were read by [`rewind`](super::RewindingDecoder::rewind).
    pub read_tokens: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("the toy broke")]
pub(super) struct Broken;

impl Toy {
    pub fn new(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            max_positions: 1000,
            spoiled: None,
            failing: None,
            overlong: None,
            rows: Vec::new(),
            calls: Vec::new(),
            read_tokens: 0,
        }
    }

    /// The logits after a sequence, `[vocab]`, from -4 to 4.
    pub fn logits(&self, tokens: &[u32]) -> Vec<f32> {
        let hash = tokens
            .iter()
            .fold(1u64, |hash, token| mix(hash ^ u64::from(*token)));
        (0..self.vocab_size as u64)
            .map(|token| (mix(hash.wrapping_add(token)) >> 40) as f32 / (1u64 << 21) as f32 - 4.0)
            .collect()
    }

    fn answer(&mut self) -> Result<Vec<f32>, Broken> {
        self.calls.push(self.rows.len());
        let step = self.calls.len();
        if self.failing == Some(step) {
            return Err(Broken);
        }
        let mut logits: Vec<f32> = self.rows.iter().flat_map(|row| self.logits(row)).collect();
        if let (Some((at, value)), Some(first)) = (self.spoiled, logits.first_mut())
            && at == step
        {
            *first = value;
        }
        if self.overlong == Some(step) {
            logits.push(0.0);
        }
        Ok(logits)
    }
}

/// The finalizer of splitmix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl super::CausalDecoder for Toy {
    type Error = Broken;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }

    fn start(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<f32>, Broken> {
        self.calls.clear();
        self.rows = prompts.to_vec();
        self.answer()
    }

    fn step(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, Broken> {
        assert_eq!(parents.len(), tokens.len());
        assert!(!parents.is_empty());
        self.rows = parents
            .iter()
            .zip(tokens)
            .map(|(parent, token)| {
                assert!((*token as usize) < self.vocab_size);
                let mut row = self.rows[*parent].clone();
                row.push(*token);
                assert!(row.len() <= self.max_positions);
                row
            })
            .collect();
        self.answer()
    }
}

impl super::RewindingDecoder for Toy {
    fn rewind(&mut self, kept: usize, tokens: &[u32]) -> Result<Vec<f32>, Broken> {
        assert!(!tokens.is_empty());
        self.read_tokens += tokens.len();
        let mut row = self.rows.pop().unwrap_or_default();
        assert!(self.rows.is_empty() && row.len() >= kept);
        row.truncate(kept);
        row.extend(tokens);
        assert!(row.len() <= self.max_positions);
        self.rows = vec![row];
        self.answer()
    }
}
