//! A training step of GPT-2 small (random weights, 4 sequences of 256 tokens, rank 4 on the fused query,
//! key and value and on c_fc, dropout 0.1): with the chunked loss, and with the logits whole, in turn.
//! Seconds, and the most bytes that a step holds beyond what was held before it.
//!
//! ```text
//! cargo bench --bench causal_step
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor};
use mtlora::core::{MtLoraConfig, Structure, Targets, devices};
use mtlora::models::{CausalBatch, CausalLm, Gpt2Config, Gpt2Sizes, fused_projections};
use mtlora::train::{Method, adamw};

const BATCH: usize = 4;
const LENGTH: usize = 256;
const PAIRS: usize = 5;
const SMOOTHING: f64 = 0.1;

/// Counts the bytes in use and their high-water mark.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; only counters are added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn chunked(model: &CausalLm, batch: &CausalBatch) -> Tensor<1> {
    model.loss(batch, SMOOTHING)
}

/// The same loss from Burn's own operations on all logits at once.
fn whole(model: &CausalLm, batch: &CausalBatch) -> Tensor<1> {
    let hidden = model.transformer.forward(&batch.strip);
    let rows = hidden.select(0, batch.places.clone());
    let embedding = model.transformer.wte.weight.val();
    let log_p = log_softmax(rows.matmul(embedding.transpose()), 1);
    let targets = batch.targets.clone().unsqueeze_dim(1);
    let nll = log_p.clone().gather(1, targets).sum().neg();
    let even = log_p.mean_dim(1).sum().neg();
    nll.mul_scalar(1.0 - SMOOTHING) + even.mul_scalar(SMOOTHING)
}

struct Subject {
    name: &'static str,
    loss: fn(&CausalLm, &CausalBatch) -> Tensor<1>,
    model: CausalLm,
    optimizer: ModuleOptimizer,
    seconds: Vec<f64>,
    bytes: usize,
}

impl Subject {
    /// One step; what the first takes is not kept.
    fn step(
        &mut self,
        batch: &CausalBatch,
        device: &Device,
        warm: bool,
    ) -> Result<f32, Box<dyn Error>> {
        let before = USED.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let start = Instant::now();
        let loss = (self.loss)(&self.model, batch).div_scalar(batch.count as f64);
        let value = loss.clone().try_into_scalar()?;
        let gradients = GradientsParams::from_grads(loss.backward(), &self.model);
        self.model = self.optimizer.step(2e-4, self.model.clone(), gradients);
        device.sync()?;
        if warm {
            self.seconds.push(start.elapsed().as_secs_f64());
            let held = PEAK.load(Ordering::Relaxed).saturating_sub(before);
            self.bytes = self.bytes.max(held);
        }
        Ok(value)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test` runs benches too, to see that they build.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let named = devices().remove(0);
    let device = named.device.autodiff();
    let config = Gpt2Config::new(Gpt2Sizes {
        vocab_size: 50_257,
        n_embd: 768,
        n_layer: 12,
        n_head: 12,
        n_positions: 1024,
        end_of_text: 50_256,
    })?;
    let adapter = MtLoraConfig::new(Structure::Lora)
        .with_rank(4)
        .with_alpha(32.0)
        .with_dropout(0.1)
        .with_target_modules(Targets::names(["c_attn", "c_fc"]))
        .with_fused_projections(fused_projections("qkv").into_iter().collect());
    let model = CausalLm::fresh(&config, 0, &device)?;
    let model = Method::MtLora(adapter).prepare(model)?;
    let sequences: Vec<Vec<u32>> = (0..BATCH as u32)
        .map(|sequence| {
            let token = |place| 5 + (sequence * 7919 + place * 104_729) % 49_995;
            (0..LENGTH as u32).map(token).collect()
        })
        .collect();
    let all = sequences.iter().map(|ids| (ids.as_slice(), 1..ids.len()));
    let batch = CausalBatch::new(all, &device)?;
    let subject = |name, loss| Subject {
        name,
        loss,
        model: model.clone(),
        optimizer: adamw(0.01),
        seconds: Vec::new(),
        bytes: 0,
    };
    let mut subjects = [
        subject("chunked loss", chunked),
        subject("whole logits", whole),
    ];
    for round in 0..=PAIRS {
        for subject in &mut subjects {
            let loss = subject.step(&batch, &device, round > 0)?;
            if round == 0 {
                println!("{:12} loss {loss:.4}", subject.name);
            }
        }
    }
    println!(
        "GPT-2 small, {BATCH} x {LENGTH} tokens, on {}, median of {PAIRS}:",
        named.name
    );
    for subject in &mut subjects {
        subject.seconds.sort_by(f64::total_cmp);
        println!(
            "{:12} {:7.3} s a step, {:5.0} MiB at most beyond the model",
            subject.name,
            subject.seconds[PAIRS / 2],
            subject.bytes as f64 / f64::from(1 << 20)
        );
    }
    Ok(())
}
