//! Measures a linear layer's product and its gradient in GFLOP/s, for each precision of the weight and for several
//! numbers of rows. Training (many rows) and decoding (few rows) spend most of their time there.
//!
//! ```text
//! cargo bench --bench products
//! ```
//!
//! It names the path of the kernels, which `MTLORA_CPU` restricts, and the peak of the instructions that the path uses for
//! each precision.

use std::error::Error;
use std::time::Instant;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Distribution, Tensor};
use mtlora::core::{BaseDtype, CpuChoice, adapted_linear, capabilities, devices};
use mtlora::train::bench::peak_gflops;

/// Rows, inputs and outputs of RoBERTa-base's layers: for long batches, for a batch of short sentences, and for ten
/// beams.
const SHAPES: [[usize; 3]; 6] = [
    [2048, 768, 3072],
    [2048, 3072, 768],
    [2048, 768, 768],
    [350, 768, 3072],
    [350, 768, 768],
    [10, 768, 3072],
];
const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test` runs benches too, to see that they build.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    CpuChoice::read()?;
    let named = devices().remove(0);
    if let Some(choice) = capabilities(&named.device).cpu {
        println!("Kernels for {}, {}.", choice.path, choice.reason());
        for dtype in BaseDtype::ALL {
            println!(
                "Peak for a weight in {dtype}: {:.0} GFLOP/s.",
                peak_gflops(dtype)
            );
        }
    }
    let device = named.device.autodiff();
    println!(
        "On {}, the best of {ROUNDS}, GFLOP/s forward and backward:\n",
        named.name
    );
    println!("| rows x in x out | f32 | bf16 | int8 |\n|---|---|---|---|");
    for [rows, input, output] in SHAPES {
        let layer = LinearConfig::new(input, output).init(&device).no_grad();
        let x = Tensor::<2>::random([rows, input], Distribution::Default, &device);
        let flops = 2.0 * (rows * input * output) as f64;
        let mut cells = Vec::new();
        for dtype in BaseDtype::ALL {
            let layer: Linear = dtype.keep(layer.clone())?;
            let [mut forward, mut backward] = [f64::INFINITY; 2];
            for _ in 0..ROUNDS {
                let start = Instant::now();
                let y = adapted_linear(&layer, x.clone().require_grad());
                device.sync()?;
                forward = forward.min(start.elapsed().as_secs_f64());
                let start = Instant::now();
                let gradients = y.backward();
                device.sync()?;
                backward = backward.min(start.elapsed().as_secs_f64());
                drop(gradients);
            }
            cells.push(format!(
                "{:.0}, {:.0}",
                flops / forward / 1e9,
                flops / backward / 1e9
            ));
        }
        println!("| {rows} x {input} x {output} | {} |", cells.join(" | "));
    }
    Ok(())
}
