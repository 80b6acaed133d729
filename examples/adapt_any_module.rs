//! Attaches adapters to a module that this project did not write (Burn's transformer encoder), trains them, merges
//! them, and shows that the outputs stay the same.
//!
//! ```text
//! cargo run --release --example adapt_any_module
//! ```

use burn::module::Module;
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Distribution, Tensor};
use mtlora::core::{MtLoraConfig, Structure, Targets, devices, trainable_parameters};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = devices().remove(0).device.autodiff();
    device.seed(0);

    // Somebody else's module, and the one statement that adapts it.
    let model = TransformerEncoderConfig::new(32, 64, 4, 2).init(&device);
    let mut model = MtLoraConfig::new(Structure::Icfm)
        .with_rank(4)
        .with_target_modules(Targets::names(["query", "value"]))
        .attach(model)?;
    println!(
        "{} of {} parameters train",
        trainable_parameters(&model),
        model.num_params()
    );

    // The task is to return the negative of the input.
    let x = Tensor::<3>::random([8, 6, 32], Distribution::Default, &device);
    let run =
        |model: &TransformerEncoder, x: Tensor<3>| model.forward(TransformerEncoderInput::new(x));
    let mut optimizer = AdamWConfig::new().init();
    for step in 0..=60 {
        let loss = (run(&model, x.clone()) + x.clone()).square().mean();
        if step % 20 == 0 {
            let loss: f32 = loss.clone().into_scalar();
            println!("step {step:2}: loss {loss:.4}");
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(0.01, model, gradients);
    }

    // Merging the adapters changes no output.
    let adapted = model.valid();
    let merged = adapted.clone().materialize();
    let x = x.inner();
    let apart: f32 = (run(&adapted, x.clone()) - run(&merged, x))
        .abs()
        .max()
        .into_scalar();
    println!(
        "merged, {} parameters: outputs differ by {apart:.1e}",
        merged.num_params()
    );
    Ok(())
}
