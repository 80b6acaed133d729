//! Prints what an adapter has learned, layer by layer. With a second adapter, it also prints how much is lost if the
//! sum of the two gets only the rank of the first.
//!
//! ```sh
//! cargo run --release --example inspect_adapter -- runs/first runs/other
//! ```

use std::error::Error;
use std::path::Path;

use mtlora::core::Truncation;
use mtlora::models::PeftAdapter;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("an adapter's folder is needed")?;
    let adapter = PeftAdapter::from_folder(Path::new(&folder))?;
    // Given the base model's `Checkpoint`, the layers have norms relative to their weights too.
    for layer in adapter.inspect(None)?.layers {
        let update = &layer.spectrum.update;
        let t = match &layer.spectrum.transform {
            Some(t) => format!(
                "T is {:.2} from I, condition {:.1}",
                t.distance, t.condition
            ),
            None => "T = I".to_string(),
        };
        // The names come from the file, so they may be anything.
        println!(
            "{}: norm {:.4}, effective rank {:.2} of {}, {t}",
            layer.path.escape_debug(),
            update.norm,
            update.effective_rank,
            layer.spectrum.rank
        );
    }
    let Some(other) = arguments.next() else {
        return Ok(());
    };
    let other = PeftAdapter::from_folder(Path::new(&other))?;
    let rank = adapter.config.r;
    let sum = PeftAdapter::combine(&[(0.5, adapter), (0.5, other)], Some(rank), None)?;
    let all = Truncation::of_all(sum.truncations.into_values());
    println!(
        "half of each, at rank {rank}: {:.1} % of the sum's norm is left out",
        100.0 * all.relative()
    );
    Ok(())
}
