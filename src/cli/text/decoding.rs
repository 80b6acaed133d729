//! The flags of decoding.

use mtlora::models::GenerationConfig;

/// Each flag overrides the setting of the run or the model's folder.
#[derive(Clone, clap::Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct DecodingArgs {
    /// Number of beams; 1 means greedy decoding, or sampling with --do-sample.
    #[arg(long)]
    num_beams: Option<usize>,
    /// A sequence's log-probability is divided by its length to this power.
    #[arg(long, allow_hyphen_values = true)]
    length_penalty: Option<f64>,
    /// No sequence of this many tokens is generated twice; 0 allows all.
    #[arg(long)]
    no_repeat_ngram_size: Option<usize>,
    /// Divide the scores of tokens that have already occurred by this.
    #[arg(long)]
    repetition_penalty: Option<f64>,
    /// Minimum number of generated tokens.
    #[arg(long)]
    min_new_tokens: Option<usize>,
    /// Maximum number of generated tokens.
    #[arg(long)]
    max_new_tokens: Option<usize>,
    /// The tokens that end a text, separated by commas.
    #[arg(long, value_delimiter = ',')]
    eos_token_ids: Option<Vec<u32>>,
    /// Sample each token instead of choosing the most likely one; --do-sample=false overrides the model's folder.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    do_sample: Option<bool>,
    /// Divide the logits by this before sampling.
    #[arg(long)]
    temperature: Option<f64>,
    /// Sample from this many of the most likely tokens; 0 means all.
    #[arg(long)]
    top_k: Option<usize>,
    /// Sample from the fewest most likely tokens that together have this probability.
    #[arg(long)]
    top_p: Option<f64>,
    /// Sample from the tokens that are at least this many times as likely as the likeliest; 0 means all.
    #[arg(long)]
    min_p: Option<f64>,
    /// Seed of sampling.
    #[arg(long)]
    seed: Option<u64>,
}

impl DecodingArgs {
    /// As [`over`](Self::over), without beams unless they are asked for, and with sampling if a flag of sampling was given.
    pub(crate) fn sampling_over(mut self, usual: GenerationConfig) -> GenerationConfig {
        let asks = [
            self.temperature.is_some(),
            self.top_k.is_some(),
            self.top_p.is_some(),
            self.min_p.is_some(),
            self.seed.is_some(),
        ];
        if asks.contains(&true) {
            self.do_sample.get_or_insert(true);
        }
        let num_beams = 1;
        self.over(GenerationConfig { num_beams, ..usual })
    }

    /// Returns `usual` with the changes from the flags.
    pub(crate) fn over(self, usual: GenerationConfig) -> GenerationConfig {
        let num_beams = match self.do_sample {
            Some(true) => self.num_beams.unwrap_or(1),
            _ => self.num_beams.unwrap_or(usual.num_beams),
        };
        GenerationConfig {
            num_beams,
            length_penalty: self.length_penalty.unwrap_or(usual.length_penalty),
            no_repeat_ngram_size: self
                .no_repeat_ngram_size
                .unwrap_or(usual.no_repeat_ngram_size),
            repetition_penalty: self.repetition_penalty.unwrap_or(usual.repetition_penalty),
            min_new_tokens: self.min_new_tokens.unwrap_or(usual.min_new_tokens),
            max_new_tokens: self.max_new_tokens.unwrap_or(usual.max_new_tokens),
            eos_token_ids: self.eos_token_ids.unwrap_or(usual.eos_token_ids),
            do_sample: self.do_sample.unwrap_or(usual.do_sample),
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_k: self.top_k.unwrap_or(usual.top_k),
            top_p: self.top_p.unwrap_or(usual.top_p),
            min_p: self.min_p.unwrap_or(usual.min_p),
            seed: self.seed.unwrap_or(usual.seed),
            ..usual
        }
    }
}
