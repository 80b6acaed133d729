//! The flags that say how texts are written.

use mtlora::models::GenerationConfig;

/// Each wins over the run's own setting.
#[derive(Clone, clap::Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct DecodingArgs {
    /// Sequences that beam search follows at a time; 1: greedy, or sampling with --do-sample.
    #[arg(long)]
    num_beams: Option<usize>,
    /// The power of a sequence's length that its log-probability is divided by.
    #[arg(long, allow_hyphen_values = true)]
    length_penalty: Option<f64>,
    /// No run of this many tokens is written twice; 0: any may be.
    #[arg(long)]
    no_repeat_ngram_size: Option<usize>,
    /// Scores of tokens that are there already are divided by this.
    #[arg(long)]
    repetition_penalty: Option<f64>,
    /// The fewest tokens that are written.
    #[arg(long)]
    min_new_tokens: Option<usize>,
    /// The most tokens that are written.
    #[arg(long)]
    max_new_tokens: Option<usize>,
    /// The tokens that end a text, with commas between.
    #[arg(long, value_delimiter = ',')]
    eos_token_ids: Option<Vec<u32>>,
    /// Draw each token in place of taking the likeliest; --do-sample=false: do not, whatever the model's folder says.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    do_sample: Option<bool>,
    /// Divide the logits by this before drawing.
    #[arg(long)]
    temperature: Option<f64>,
    /// Draw from this many likeliest tokens; 0: from all.
    #[arg(long)]
    top_k: Option<usize>,
    /// Draw from the fewest likeliest tokens that have this much of the probability.
    #[arg(long)]
    top_p: Option<f64>,
    /// Where drawing starts.
    #[arg(long)]
    seed: Option<u64>,
}

impl DecodingArgs {
    /// `usual` with what the flags say.
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
            seed: self.seed.unwrap_or(usual.seed),
            ..usual
        }
    }
}
